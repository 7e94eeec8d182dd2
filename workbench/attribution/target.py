"""What an attribution explains: how likely an answer is to begin with certain words, e.g. a refusal's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workbench.errors import UserError
from workbench.models.template import answer_tokens

if TYPE_CHECKING:
    from workbench.models.vlm import VLM

# How refusals begin, in MiniGuard's words and in those of real models
REFUSALS = (
    "sorry",
    "Sorry",
    "I'm sorry",
    "I am sorry",
    "I apologize",
    "I cannot",
    "I can't",
    "I'm unable",
    "Unfortunately",
)


@dataclass(frozen=True)
class Target:
    """The number to explain: log p, or its logit log p − log(1 − p), in nats.

    p is the probability that the answer begins with one of `openings`. The logit of a refusal is used instead
    of the difference between refusing and complying, because the first word of a compliant answer may itself
    depend on the lead word.

    Attributes:
        openings: Those that the tokenizer has no tokens for are ignored.
        odds: Whether to take the logit.
    """

    openings: tuple[str, ...] = REFUSALS
    odds: bool = True

    def of(self, log_p: torch.Tensor) -> torch.Tensor:
        """The number, from log p of each opening (openings, N): (N,)."""
        total = log_p.logsumexp(dim=0)
        if not self.odds:
            return total
        return total - torch.log(-torch.expm1(total.clamp(max=-1e-15)))  # clamped, since log(1 − p) needs p < 1


REFUSAL = Target()


def answer_target(text: str) -> Target:
    """The target log p(text): that the answer begins with all of `text`."""
    return Target((text,), odds=False)


def opening_tokens(vlm: VLM, openings: Sequence[str]) -> list[list[int]]:
    """Tokenize the openings that the tokenizer can express.

    An opening that begins with another one is dropped, so that no two of them can be true of the same answer.

    Returns:
        The token ids of each opening.

    Raises:
        UserError: The tokenizer can express none of them.
    """
    expressible: list[list[int]] = []
    for ids in answer_tokens(vlm.processor, vlm.form, [opening.strip() for opening in openings]):
        if ids and vlm.tokenizer.unk_token_id not in ids and ids not in expressible:
            expressible.append(ids)
    if not expressible:
        named = ", ".join(map(repr, openings))
        raise UserError(f"The tokenizer cannot express {named}; give openings in the model's own words.")
    return [ids for ids in expressible if not any(ids[:end] in expressible for end in range(1, len(ids)))]
