"""What differs between architectures, in one table; everything else is read from the model itself.

This file must not import torch.
"""

from __future__ import annotations

from typing import NamedTuple


class Architecture(NamedTuple):
    """What a model's configuration does not say.

    Attributes:
        projector: The name of the module that projects from vision to language.
        token_type: The type of an answer's tokens, for models whose tokens have types.
        template: The chat template, for models that have none on the hub.
    """

    projector: str
    token_type: int = 0
    template: str = ""


_PICTURE_AND_TEXT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
_LLAVA = Architecture("multi_modal_projector")
# By the configuration's model_type
ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "gemma3", "internvl", "mistral3"), _LLAVA),
    # Tokens of type 0 attend to later tokens too. The processor adds <bos> and a line break to a prompt.
    "paligemma": Architecture("multi_modal_projector", token_type=1, template=_PICTURE_AND_TEXT),
    **dict.fromkeys(("idefics3", "smolvlm"), Architecture("connector")),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), Architecture("visual.merger")),
}
