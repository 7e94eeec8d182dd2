"""What differs from one architecture to another, in one table; all else is asked of the model itself. No torch in this file."""

from __future__ import annotations

from typing import NamedTuple


class Architecture(NamedTuple):
    """projector: where the projector from vision to language lies. token_type: of tokens behind the prompt, where tokens have types."""

    projector: str
    token_type: int = 0


_LLAVA = Architecture("multi_modal_projector")
# by the configuration's model_type
ARCHITECTURES = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "gemma3", "internvl", "mistral3"), _LLAVA),
    "paligemma": Architecture("multi_modal_projector", token_type=1),  # tokens of type 0 see what comes after them
    **dict.fromkeys(("idefics3", "smolvlm"), Architecture("connector")),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), Architecture("visual.merger")),
}
