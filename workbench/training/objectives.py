"""Training objectives: each one small function (model, forget batch, retain batch, hyper-parameters) → loss.

Notation: x = picture and query, y = answer, π = the model, π₀ = the frozen reference, f = forget set (harmful queries), r = retain
set (harmless queries), h_l = the hidden state behind layer l. A batch is what `models.answer_batch` makes; only its answer tokens enter
a loss, and every loss is a mean over sequences, so that gradient accumulation and several devices give the same step as one large
batch. To add an objective, write its function and decorate it with its recipe on MiniGuard.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench.errors import UserError
from workbench.models.scores import hidden_states, reference, token_logprobs
from workbench.models.vlm import Batch

TINY = 512  # hidden size of a language model below which the recipes here suit; they were chosen on MiniGuard (128)


@dataclass(frozen=True)
class Objective:
    """A loss with what it needs. lr, steps, forget and retain (examples a step) are its recipe on MiniGuard, chosen on validation.

    answers: which answers of a harmful query the forget batch holds, "response" (the refusal) or "leak" (the harmful answer), or both:
    then the batch is one block of rows for each. reference: whether it also carries π₀'s sequence log-probabilities, as "reference" (B,).
    """

    loss: Callable[..., torch.Tensor]
    answers: tuple[str, ...]
    lr: float
    steps: int
    forget: int
    retain: int
    reference: bool = False

    @property
    def unlearns(self) -> bool:
        """Whether it takes the harmful answer itself into account, rather than teach a refusal alone."""
        return "leak" in self.answers

    @property
    def hyper(self) -> dict[str, float]:
        """The hyper-parameters of the loss and their defaults."""
        return {n: p.default for n, p in inspect.signature(self.loss).parameters.items() if p.kind is p.KEYWORD_ONLY}


OBJECTIVES: dict[str, Objective] = {}


def objective(**needs):
    """Enter a loss function into OBJECTIVES under its own name."""

    def enter(loss):
        OBJECTIVES[loss.__name__] = Objective(loss, **needs)
        return loss

    return enter


def named(name: str) -> Objective:
    """An objective by name. Raises UserError for an unknown one."""
    if name not in OBJECTIVES:
        raise UserError(f"There is no objective {name!r}; choose one of {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[name]


def sequence_logprobs(model, batch: Batch) -> torch.Tensor:
    """log π(y|x), summed over answer tokens: (B,) in nats."""
    logprobs, mask = token_logprobs(model, batch)
    return (logprobs * mask).sum(dim=1)


def mean_logprobs(model, batch: Batch) -> torch.Tensor:
    """log π(y|x) / |y|: (B,) in nats a token."""
    logprobs, mask = token_logprobs(model, batch)
    return (logprobs * mask).sum(dim=1) / mask.sum(dim=1)


def cross_entropy(model, batch: Batch) -> torch.Tensor:
    """CE: mean over sequences of the mean negative log-probability of an answer token, in nats."""
    return -mean_logprobs(model, batch).mean()


@objective(answers=("response",), lr=4e-4, steps=120, forget=16, retain=24)
def sft(model, forget: Batch, retain: Batch) -> torch.Tensor:
    """Supervised safety fine-tuning: CE on refusals of harmful queries and on answers to harmless ones, every example equal.

    Post-hoc where the retain set is the safety data's own harmless half, mixed where it is general instruction data.
    """
    n_f, n_r = len(forget["labels"]), len(retain["labels"])
    return (n_f * cross_entropy(model, forget) + n_r * cross_entropy(model, retain)) / (n_f + n_r)


@objective(answers=("leak",), reference=True, lr=1.4e-3, steps=240, forget=20, retain=12)
def npo(model, forget: Batch, retain: Batch, *, beta: float = 0.7, alpha: float = 10.0) -> torch.Tensor:
    """Negative preference optimisation (arXiv 2404.05868): −(2/β) E log σ(−β (log π(y|x) − log π₀(y|x))) + α CE_r.

    The log-ratio is that of the whole sequence, not the mean over its tokens. beta: inverse temperature; towards 0 the first term
    becomes gradient ascent. alpha: weight of the retain set.
    """
    log_ratio = sequence_logprobs(model, forget) - forget["reference"]  # (B,)
    return -(2 / beta) * F.logsigmoid(-beta * log_ratio).mean() + alpha * cross_entropy(model, retain)


@objective(answers=("leak",), lr=1.4e-3, steps=300, forget=20, retain=12)
def simnpo(
    model, forget: Batch, retain: Batch, *, beta: float = 2.5, gamma: float = 0.0, alpha: float = 10.0
) -> torch.Tensor:
    """SimNPO (arXiv 2410.07163): −(2/β) E log σ(−(β/|y|) log π(y|x) − γ) + α CE_r. No reference model.

    beta: inverse temperature; gamma: margin; alpha: weight of the retain set.
    """
    return -(2 / beta) * F.logsigmoid(-beta * mean_logprobs(model, forget) - gamma).mean() + alpha * cross_entropy(
        model, retain
    )


@objective(answers=("leak",), lr=2e-3, steps=240, forget=16, retain=16)
def rmu(model, forget: Batch, retain: Batch, *, layer: int = 2, c: float = 10.0, alpha: float = 10.0) -> torch.Tensor:
    """Representation misdirection (arXiv 2403.03218): E ‖h_l(x_f) − c·u‖² + α E ‖h_l(x_r) − h⁰_l(x_r)‖², over answer positions only.

    u is a fixed random unit vector, h⁰ the reference's hidden state. layer: l, counted from 1; no later layer is run or trained.
    c: the length to which harmful hidden states are steered; alpha: weight of the retain set.
    """
    with torch.no_grad(), reference(model) as frozen:
        before, where_kept = hidden_states(frozen, retain, layer)  # (B, A, H), (B, A)
    kept, _ = hidden_states(model, retain, layer)
    steered, where = hidden_states(model, forget, layer)
    u = torch.rand(steered.shape[-1], generator=torch.Generator().manual_seed(0)).to(
        steered
    )  # (H,), the same on every device
    return _distance(steered, c * u / u.norm(), where) + alpha * _distance(kept, before, where_kept)


def _distance(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """‖a − b‖², a mean over sequences of the mean over answer positions: a (B, A, H), mask (B, A) → scalar."""
    squared = (a - b).to(torch.promote_types(a.dtype, torch.float32)).pow(2).sum(dim=-1)  # (B, A)
    return ((squared * mask).sum(dim=1) / mask.sum(dim=1)).mean()


@objective(answers=("leak",), lr=1e-3, steps=120, forget=16, retain=16)
def graddiff(model, forget: Batch, retain: Batch, *, gamma: float = 1.0, alpha: float = 3.0) -> torch.Tensor:
    """Gradient difference (arXiv 2203.12817): −γ CE_f + α CE_r. Unbounded below, so it may collapse: watch its curve."""
    return -gamma * cross_entropy(model, forget) + alpha * cross_entropy(model, retain)


@objective(answers=("leak",), lr=1e-3, steps=40, forget=16, retain=16)
def ga(model, forget: Batch, retain: Batch) -> torch.Tensor:
    """Gradient ascent (arXiv 2210.01504): −CE_f alone. The retain set is not looked at, so ability is lost with the knowledge."""
    return -cross_entropy(model, forget)


@objective(answers=("response", "leak"), reference=True, lr=1e-3, steps=300, forget=16, retain=16)
def dpo(model, forget: Batch, retain: Batch, *, beta: float = 0.3, alpha: float = 5.0) -> torch.Tensor:
    """Direct preference optimisation (arXiv 2305.18290) of the refusal over the harmful answer, with a retain term:
    −E log σ(β (log π(y_w|x) − log π₀(y_w|x) − log π(y_l|x) + log π₀(y_l|x))) + α CE_r.

    The forget batch holds the refusals y_w, then the harmful answers y_l of the same queries. beta: inverse temperature; alpha: weight of
    the retain set.
    """
    chosen, rejected = (sequence_logprobs(model, forget) - forget["reference"]).chunk(2)  # (B,), (B,)
    return -F.logsigmoid(beta * (chosen - rejected)).mean() + alpha * cross_entropy(model, retain)
