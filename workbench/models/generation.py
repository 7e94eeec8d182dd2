"""How a model writes its answers: settings that are explicit, recorded and compared."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from workbench.errors import UserError, say

MAX_NEW_TOKENS = 64  # of an answer, if neither the settings nor the model's generation_config set a limit
# What decides the next token, as transformers has it if nothing is set: the most likely one
_GREEDY: dict[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_beams": 1,
    "length_penalty": 1.0,
    "penalty_alpha": None,
    "exponential_decay_length_penalty": None,
    "min_length": 0,
    "min_new_tokens": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "sequence_bias": None,
    "guidance_scale": None,
    "cache_implementation": None,
}


class Answer(NamedTuple):
    """What a model wrote. cut: whether it was still writing when it reached the limit of its length."""

    text: str
    cut: bool


@dataclass(frozen=True)
class Generation:
    """How answers are written.

    Attributes:
        max_new_tokens: The longest answer; None for the limit in the model's generation_config, else
            MAX_NEW_TOKENS.
        system_prompt: What the model is told before the query; "" for what its chat template says by itself.
        temperature: 0 takes the most likely token (greedy); above, tokens are drawn at random.
        samples: How many answers are drawn to each query.
        seed: Of the draws.

    Raises:
        UserError: Settings that contradict one another.
    """

    max_new_tokens: int | None = None
    system_prompt: str = ""
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings against each other."""
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens must be at least 1, not {self.max_new_tokens}.")
        if not 0 <= self.temperature < math.inf or self.samples < 1:
            raise UserError("--temperature must be at least 0, and --samples at least 1.")
        if self.samples > 1 and not self.temperature:
            raise UserError("Greedy answers are all the same: several --samples need a --temperature above 0.")

    def limit(self, model: Any) -> int:
        """The longest answer of a network, in tokens."""
        return self.max_new_tokens or model.generation_config.max_new_tokens or MAX_NEW_TOKENS

    def record(self, model: Any) -> dict[str, Any]:
        """What is noted beside answers, and must not change when an evaluation is resumed."""
        return asdict(self) | {"max_new_tokens": self.limit(model)}

    def options(self, model: Any) -> dict[str, Any]:
        """The arguments of transformers' `generate` for a network.

        A checkpoint's own sampling, penalties and beams are not applied; it is said once.
        """
        own = own_settings(model)
        if own:
            _say_not_applied(", ".join(own), self.temperature)
        drawn = {"do_sample": True, "temperature": self.temperature, "top_k": 0} if self.temperature else {}
        return _GREEDY | drawn | {"max_new_tokens": self.limit(model)}


AS_IS = Generation()  # greedy, as long as the model's generation_config allows


def own_settings(model: Any) -> list[str]:
    """What a network's generation_config sets that would change its answers, e.g. repetition_penalty=1.05."""
    values = {name: getattr(model.generation_config, name, None) for name in _GREEDY}
    return [f"{name}={value}" for name, value in values.items() if value is not None and value != _GREEDY[name]]


@functools.cache
def _say_not_applied(settings: str, temperature: float) -> None:
    how = f"drawn at temperature {temperature:g}" if temperature else "greedy"
    say(f"The model's generation_config sets {settings}; this is not applied: answers are {how}.")
