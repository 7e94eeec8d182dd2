"""Training objectives: each one small function (model, forget batch, retain batch, hyper-parameters) → loss.

Notation: x = picture and query, y = answer, π = the model, π₀ = the frozen reference, f = forget set (harmful queries), r = retain
set (harmless queries). A batch is what `models.answer_batch` makes; only its answer tokens enter a loss. To add an objective, write
its function and decorate it: the decorator says which answer of a harmful query it wants to see, and its recipe on MiniGuard.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .errors import UserError
from .models import Batch, token_logprobs


@dataclass(frozen=True)
class Objective:
    """A loss with what it needs. lr, steps, forget and retain (examples a step) are its recipe on MiniGuard.

    target: the answer of a harmful query that it trains on, "response" (the refusal) or "leak" (the harmful answer).
    reference: whether the forget batch must carry π₀'s sequence log-probabilities, as "reference" (B,).
    """

    loss: Callable[..., torch.Tensor]
    target: str
    reference: bool
    lr: float
    steps: int
    forget: int
    retain: int

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


def cross_entropy(model, batch: Batch) -> torch.Tensor:
    """Mean over sequences of the mean negative log-probability of an answer token, in nats.

    A mean of means, so that gradient accumulation and several devices give the same step as one large batch.
    """
    logprobs, mask = token_logprobs(model, batch)
    return -((logprobs * mask).sum(dim=1) / mask.sum(dim=1)).mean()


@objective(target="response", reference=False, lr=4e-4, steps=120, forget=16, retain=24)
def sft(model, forget: Batch, retain: Batch) -> torch.Tensor:
    """Supervised safety fine-tuning: CE on refusals of harmful queries and on answers to harmless ones, every example equal."""
    n_f, n_r = len(forget["labels"]), len(retain["labels"])
    return (n_f * cross_entropy(model, forget) + n_r * cross_entropy(model, retain)) / (n_f + n_r)


@objective(target="leak", reference=True, lr=1.4e-3, steps=240, forget=20, retain=12)
def npo(model, forget: Batch, retain: Batch, *, beta: float = 0.7, alpha: float = 10.0) -> torch.Tensor:
    """Negative preference optimisation (arXiv 2404.05868): −(2/β) E log σ(−β (log π(y|x) − log π₀(y|x))) + α CE_r.

    The log-ratio is that of the whole sequence, not the mean over its tokens. beta: inverse temperature; towards 0 the first term
    becomes gradient ascent. alpha: weight of the retain set.
    """
    log_ratio = sequence_logprobs(model, forget) - forget["reference"]  # (B,)
    return -(2 / beta) * F.logsigmoid(-beta * log_ratio).mean() + alpha * cross_entropy(model, retain)
