"""Training objectives: each a small function (model, forget batch, retain batch, hyper-parameters) → loss.

Notation: x = image and query, y = answer, π = the model, π₀ = the frozen reference, f = forget set (harmful
queries), r = retain set (harmless queries), h_l = the hidden state after layer l, CE = cross-entropy per
answer token. Shapes: B = rows, A = answer columns, H = hidden size. A batch is what `answer_batch` makes;
only its answer tokens enter a loss. Every loss is a mean over sequences, so that gradient accumulation and
several devices give the same step as one large batch. To add an objective, write its function and decorate
it with its recipe on MiniGuard.

The last two differ from their methods' papers in this: they are what the authors of arXiv 2503.11832 ran, by
the code that they released (docs/protocols.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from workbench.errors import UserError
from workbench.models.scores import all_hidden_states, hidden_states, reference, token_logprobs
from workbench.models.vlm import IGNORED, Batch

Loss = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss, what it needs, and its recipe on MiniGuard (lr, steps, forget, retain), chosen on validation.

    Attributes:
        loss: (model, forget batch, retain batch, hyper-parameters) → scalar.
        answers: Which answers to harmful queries the forget batch holds: "response" (the refusal), "leak"
            (the harmful answer), or both, one block of rows for each.
        lr: Learning rate.
        steps: Optimiser steps.
        forget: Harmful examples per step.
        retain: Harmless examples per step.
        reference: Whether the forget batch also holds log π₀(y|x) of each row, as "reference" (B,).
        appended: Whether the harmful answer stands in the user's turn too, after the query.
        compares: The weight of a term that compares the retain set with π₀ at each step, which takes a copy
            of the network if its own weights are trained; "" if there is none.
        truncated: Whether layers after the hyper-parameter `layer` are neither run nor trained.
        released: Whether it is what the authors of arXiv 2503.11832 ran, and not its method's own formula.
    """

    loss: Loss
    answers: tuple[str, ...]
    lr: float
    steps: int
    forget: int
    retain: int
    reference: bool = False
    appended: bool = False
    compares: str = ""
    truncated: bool = False
    released: bool = False

    @property
    def unlearns(self) -> bool:
        """Whether the harmful answer itself enters the loss; otherwise only refusals are taught."""
        return "leak" in self.answers

    @property
    def hyper(self) -> dict[str, float]:
        """The hyper-parameters of the loss and their defaults."""
        parameters = inspect.signature(self.loss).parameters
        return {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


OBJECTIVES: dict[str, Objective] = {}


def objective(**needs: Any) -> Callable[[Loss], Loss]:
    """Decorator that enters a loss into OBJECTIVES under its own name. needs: fields of Objective."""

    def enter(loss: Loss) -> Loss:
        OBJECTIVES[loss.__name__] = Objective(loss, **needs)
        return loss

    return enter


def named(name: str) -> Objective:
    """An objective by name. Raises UserError if there is none."""
    if name not in OBJECTIVES:
        raise UserError(f"There is no objective {name!r}; choose one of {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[name]


def sequence_logprobs(model: Any, batch: Batch) -> torch.Tensor:
    """Log π(y|x), summed over answer tokens: (B,) in nats."""
    logprobs, mask = token_logprobs(model, batch)
    return (logprobs * mask).sum(dim=1)


def mean_logprobs(model: Any, batch: Batch) -> torch.Tensor:
    """Log π(y|x) / |y|: (B,) in nats per token."""
    logprobs, mask = token_logprobs(model, batch)
    return (logprobs * mask).sum(dim=1) / mask.sum(dim=1)


def cross_entropy(model: Any, batch: Batch) -> torch.Tensor:
    """CE: mean over sequences of the mean negative log-probability of an answer token, in nats (scalar)."""
    return -mean_logprobs(model, batch).mean()


def token_cross_entropy(model: Any, batch: Batch) -> torch.Tensor:
    """CE over all answer tokens of a batch at once, in nats: long answers count more (scalar)."""
    logprobs, mask = token_logprobs(model, batch)
    return -(logprobs * mask).sum() / mask.sum()


@objective(answers=("response",), lr=2e-3, steps=240, forget=16, retain=16)
def sft(model: Any, forget: Batch, retain: Batch) -> torch.Tensor:
    """Supervised safety fine-tuning: CE on refusals of harmful queries and answers to harmless ones (scalar).

    Every example counts the same. It is "post-hoc" if the retain set is the safety data's own harmless half,
    and "mixed" if it is general instruction data.
    """
    n_f, n_r = len(forget["labels"]), len(retain["labels"])
    return (n_f * cross_entropy(model, forget) + n_r * cross_entropy(model, retain)) / (n_f + n_r)


@objective(answers=("leak",), reference=True, lr=5e-4, steps=240, forget=16, retain=16)
def npo(model: Any, forget: Batch, retain: Batch, *, beta: float = 0.7, alpha: float = 10.0) -> torch.Tensor:
    """Negative preference optimisation: −(2/β) E log σ(−β (log π(y|x) − log π₀(y|x))) + α CE_r (scalar).

    Source: arXiv 2404.05868. The log-ratio is that of the whole sequence, not a mean over its tokens.

    Args:
        model: π.
        forget: Harmful answers, with their "reference" (B,).
        retain: Answers to harmless queries.
        beta: Inverse temperature; towards 0, the first term becomes gradient ascent.
        alpha: Weight of the retain set.
    """
    log_ratio = sequence_logprobs(model, forget) - forget["reference"]  # (B,)
    return -(2 / beta) * F.logsigmoid(-beta * log_ratio).mean() + alpha * cross_entropy(model, retain)


@objective(answers=("leak",), lr=2e-3, steps=240, forget=16, retain=16)
def simnpo(
    model: Any, forget: Batch, retain: Batch, *, beta: float = 2.5, gamma: float = 0.0, alpha: float = 10.0
) -> torch.Tensor:
    """SimNPO: −(2/β) E log σ(−(β/|y|) log π(y|x) − γ) + α CE_r, without a reference model (scalar).

    Source: arXiv 2410.07163.

    Args:
        model: π.
        forget: Harmful answers.
        retain: Answers to harmless queries.
        beta: Inverse temperature.
        gamma: Margin in nats.
        alpha: Weight of the retain set.
    """
    margin = -beta * mean_logprobs(model, forget) - gamma  # (B,)
    return -(2 / beta) * F.logsigmoid(margin).mean() + alpha * cross_entropy(model, retain)


@objective(answers=("leak",), lr=2e-3, steps=240, forget=16, retain=16, compares="alpha", truncated=True)
def rmu(
    model: Any, forget: Batch, retain: Batch, *, layer: int = 2, c: float = 10.0, alpha: float = 10.0
) -> torch.Tensor:
    """Representation misdirection: E ‖h_l(x_f) − c·u‖² + α E ‖h_l(x_r) − h⁰_l(x_r)‖² (scalar).

    Source: arXiv 2403.03218. u is a fixed random unit vector, h⁰ the reference's hidden state; only answer
    positions count. No layer after l is run or trained.

    Args:
        model: π.
        forget: Harmful answers.
        retain: Answers to harmless queries.
        layer: l, counted from 1.
        c: The length to which hidden states of harmful answers are steered.
        alpha: Weight of the retain set.
    """
    steered, mask = hidden_states(model, forget, layer)  # (B, A, H), (B, A)
    loss = _distance(steered, c * _random_direction(steered), mask)
    if alpha:
        with torch.no_grad(), reference(model) as frozen:
            original, _ = hidden_states(frozen, retain, layer)  # (B, A, H)
        retained, mask = hidden_states(model, retain, layer)
        loss = loss + alpha * _distance(retained, original, mask)
    return loss


def _random_direction(like: torch.Tensor) -> torch.Tensor:
    """A fixed random unit vector (H,), drawn on the CPU so that it is the same on every device."""
    direction = torch.rand(like.shape[-1], generator=torch.Generator().manual_seed(0)).to(like)
    return direction / direction.norm()


def _distance(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """‖a − b‖²: the mean over sequences of the mean over answer positions (scalar).

    Args:
        a: (B, A, H).
        b: (B, A, H) or (H,).
        mask: (B, A), true at answer positions.
    """
    squared = (a - b).to(torch.promote_types(a.dtype, torch.float32)).pow(2).sum(dim=-1)  # (B, A)
    return ((squared * mask).sum(dim=1) / mask.sum(dim=1)).mean()


@objective(answers=("leak",), lr=2e-3, steps=240, forget=16, retain=16)
def graddiff(model: Any, forget: Batch, retain: Batch, *, gamma: float = 1.0, alpha: float = 3.0) -> torch.Tensor:
    """Gradient difference: −γ CE_f + α CE_r (scalar).

    Source: arXiv 2203.12817. It is unbounded below and may collapse: watch its curve.

    Args:
        model: π.
        forget: Harmful answers.
        retain: Answers to harmless queries.
        gamma: Weight of the forget set.
        alpha: Weight of the retain set.
    """
    return -gamma * cross_entropy(model, forget) + alpha * cross_entropy(model, retain)


@objective(answers=("leak",), lr=5e-4, steps=120, forget=16, retain=16)
def ga(model: Any, forget: Batch, retain: Batch) -> torch.Tensor:
    """Gradient ascent: −CE_f alone (scalar).

    Source: arXiv 2210.01504. The retain set is not used, so ability is lost together with the knowledge.
    """
    return -cross_entropy(model, forget)


@objective(answers=("response", "leak"), reference=True, lr=2e-3, steps=240, forget=16, retain=16)
def dpo(model: Any, forget: Batch, retain: Batch, *, beta: float = 0.3, alpha: float = 5.0) -> torch.Tensor:
    """Direct preference optimisation of the refusal y_w over the harmful answer y_l (scalar).

    −E log σ(β (log π(y_w|x) − log π₀(y_w|x) − log π(y_l|x) + log π₀(y_l|x))) + α CE_r. Source: arXiv
    2305.18290.

    Args:
        model: π.
        forget: The refusals y_w, then the harmful answers y_l of the same queries, with their "reference"
            (2B,).
        retain: Answers to harmless queries.
        beta: Inverse temperature.
        alpha: Weight of the retain set.
    """
    chosen, rejected = (sequence_logprobs(model, forget) - forget["reference"]).chunk(2)  # (B,), (B,)
    return -F.logsigmoid(beta * (chosen - rejected)).mean() + alpha * cross_entropy(model, retain)


@objective(answers=("leak",), reference=True, compares="own", released=True, lr=5e-4, steps=240, forget=16, retain=16)
def npo_token_mean(
    model: Any, forget: Batch, retain: Batch, *, beta: float = 0.7, alpha: float = 1.0, own: float = 0.0
) -> torch.Tensor:
    """NPO on token means: −(2/β) log σ(β (CE_f − CE⁰_f)) + α CE_r, and a mirrored term (scalar).

    That term is own · (2/β) log σ(β (CE_r − CE⁰_r)). Each CE is over all answer tokens of the batch at once.
    So the log-ratio is that of an average token, and the gradient does not fade as soon as a long answer is
    unlikely.

    Args:
        model: π.
        forget: Harmful answers, with their "reference" (B,).
        retain: Answers to harmless queries.
        beta: Inverse temperature.
        alpha: Weight of the retain set's cross-entropy.
        own: Weight of the mirrored term, which rewards answers to harmless queries that become likelier.
    """
    answer_tokens = (forget["labels"] != IGNORED).sum()
    change = token_cross_entropy(model, forget) + forget["reference"].sum() / answer_tokens
    retained = token_cross_entropy(model, retain)
    loss = -(2 / beta) * F.logsigmoid(beta * change) + alpha * retained
    if own:
        with torch.no_grad(), reference(model) as frozen:
            original = token_cross_entropy(frozen, retain)
        loss = loss + own * (2 / beta) * F.logsigmoid(beta * (retained - original))
    return loss


@objective(answers=("leak",), appended=True, compares="own", released=True, lr=2e-3, steps=240, forget=16, retain=16)
def rmu_all_positions(
    model: Any, forget: Batch, retain: Batch, *, layer: int = 2, c: float = 10.0, alpha: float = 1.2, own: float = 0.0
) -> torch.Tensor:
    """RMU at every position: mean (h_l(x_f) − c·u)² + α CE_r + own · mean (h_l(x_r) − h⁰_l(x_r))² (scalar).

    Means are over positions, pictures and queries included, and over hidden units; CE_r is over all answer
    tokens of the batch. All layers are trained.

    Args:
        model: π.
        forget: Harmful answers, which stand in the user's turn too.
        retain: Answers to harmless queries.
        layer: l, counted from 1.
        c: The length to which hidden states are steered.
        alpha: Weight of the retain set's cross-entropy.
        own: Weight of the retain set's hidden states.
    """
    steered, mask = all_hidden_states(model, forget, layer)  # (B, T, H), (B, T)
    loss = _mean_square(steered - c * _random_direction(steered), mask) + alpha * token_cross_entropy(model, retain)
    if own:
        with torch.no_grad(), reference(model) as frozen:
            original, _ = all_hidden_states(frozen, retain, layer)
        retained, mask = all_hidden_states(model, retain, layer)
        loss = loss + own * _mean_square(retained - original, mask)
    return loss


def _mean_square(differences: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean square of differences (B, T, H) where the mask (B, T) is true (scalar)."""
    squared = differences.to(torch.promote_types(differences.dtype, torch.float32)).pow(2).mean(dim=-1)  # (B, T)
    return (squared * mask).sum() / mask.sum()
