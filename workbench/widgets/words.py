"""Words that a model does not know, marked while they are typed.

A model that was trained from nothing reads every word that it has never seen as one and the same token, so
its answer to a query with such words means little.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.models.vlm import VLM


def unknown_places(vlm: VLM, text: str) -> list[tuple[int, int]]:
    """Where in a text the words are that a model cannot read: first character, and the one after the last.

    Empty for models that read any text, in pieces of words.
    """
    tokenizer = vlm.tokenizer
    if tokenizer.unk_token_id is None or not tokenizer.is_fast:
        return []
    found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [(start, end) for token, (start, end) in pairs if token == tokenizer.unk_token_id and end > start]


def known_words(vlm: VLM) -> list[str]:
    """All words of a model's vocabulary, without special tokens and punctuation."""
    return sorted(word for word in vlm.tokenizer.get_vocab() if word.isalpha())


def marked(models: Iterable[VLM], text: str) -> str:
    """A text with the words marked that one of the models does not know, and all that it knows, as HTML.

    Empty if all models can read all of it.
    """
    for vlm in models:
        if places := unknown_places(vlm, text):
            pieces, end = [], 0
            for start, stop in places:
                pieces.append(f"{escape(text[end:start])}<mark>{escape(text[start:stop])}</mark>")
                end = stop
            words = known_words(vlm)
            return (
                f"<p>{''.join(pieces)}{escape(text[end:])}<br>The marked words are unknown to the model.</p>"
                f"<details><summary>It knows {len(words)} words.</summary>{escape(', '.join(words))}</details>"
            )
    return ""
