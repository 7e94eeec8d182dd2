"""Which tokens of a prompt belong to which word of the query."""

from __future__ import annotations

import re

from PIL import Image

from workbench.errors import UserError
from workbench.models.vlm import VLM, prompt, prompt_batch

Spans = list[tuple[int, int]]  # begin and end of each word, in characters of the query


def word_spans(query: str) -> Spans:
    """Where the words of a query stand in it; they are parted by spaces."""
    return [match.span() for match in re.finditer(r"\S+", query)]


def tokens_of_words(vlm: VLM, query: str) -> list[int]:
    """How many tokens each word of a query has in the model's prompt."""
    _, words = _query_tokens(vlm, query)
    return [words.count(word) for word in range(len(word_spans(query)))]


def words_of_tokens(vlm: VLM, image: Image.Image, query: str) -> list[int]:
    """The word that each token of the prompt belongs to, −1 for none.

    A processor writes a picture's tokens into the text before it tokenizes, and may add further text, so the
    query is located by its own tokens.

    Args:
        vlm: The model.
        image: The picture.
        query: The query.

    Raises:
        UserError: The prompt does not contain the query's tokens.
    """
    tokens, words = _query_tokens(vlm, query)
    prompt_tokens = prompt_batch(vlm, [image], [query])["input_ids"][0].tolist()
    for start in range(len(prompt_tokens) - len(tokens), -1, -1):
        if prompt_tokens[start : start + len(tokens)] == tokens:
            after = len(prompt_tokens) - start - len(tokens)
            return [-1] * start + words + [-1] * after
    raise UserError(f"The prompt of {vlm.name} does not contain the query {query!r} as it is; write it in other words.")


def _query_tokens(vlm: VLM, query: str) -> tuple[list[int], list[int]]:
    """The tokens that overlap the query in the prompt's text, and the word that each belongs to."""
    text = prompt(vlm, query)
    coded = vlm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    begin, found = text.rindex(query), []
    for token, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
        places = [place for place, (a, b) in enumerate(word_spans(query)) if start < begin + b and end > begin + a]
        found += [(token, places[0])] if places else []
    return [token for token, _ in found], [place for _, place in found]
