"""What a model's own chat template makes of a query and of an answer, as text and as tokens."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jinja2

from workbench.errors import UserError, first_line

_PICTURE_TOKENS = ("image_token", "boi_token", "eoi_token", "video_token", "audio_token")  # of processors


class AnswerForm(NamedTuple):
    """How an answer stands in a conversation.

    Attributes:
        before: The end of the prompt as text, from the last special token on.
        lead: What the template writes between the prompt and the answer, e.g. a space.
        ending: The ids of the tokens that end the turn; the last one stops the model.
    """

    before: str
    lead: str
    ending: list[int]


@functools.lru_cache(maxsize=4)  # some tokenizers have thousands
def special_tokens(processor: Any) -> frozenset[str]:
    """All texts that the tokenizer or the processor takes for something other than text."""
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = {*tokenizer.all_special_tokens}
    tokens |= {str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special}
    tokens |= {str(getattr(processor, name, None) or "") for name in _PICTURE_TOKENS}
    return frozenset(tokens - {""})


def plain_text(processor: Any, query: str) -> str:
    """A query without special tokens: a person's text must not pose as a picture or end its own turn.

    Half of a surrogate pair, which no tokenizer can read, becomes a question mark.
    """
    return remove_tokens(query.encode("utf-8", "replace").decode(), special_tokens(processor))


def remove_tokens(text: str, tokens: Collection[str]) -> str:
    """A text without these tokens.

    They are removed repeatedly, because what is left may form another one, as in <im<image>age>.
    """
    tokens = [token for token in tokens if token]
    while any(token in text for token in tokens):
        for token in tokens:
            text = text.replace(token, "")
    return text


def check_answers(processor: Any, answers: Sequence[str]) -> None:
    """Raise UserError if an answer contains a special token: it cannot be taught as text."""
    special = special_tokens(processor)
    for answer in answers:
        if found := sorted(token for token in special if token in answer):
            raise UserError(f"The answer {answer[:80]!r} contains {found[0]}, which the model does not read as text.")


def render(
    processor: Any, name: str, query: str, answer: str | None = None, system: str = "", picture: bool = True
) -> str:
    """A conversation as the model's chat template writes it: a picture, a query, and perhaps an answer.

    Args:
        processor: The model's.
        name: The model's, for messages.
        query: The query.
        answer: The answer; without it, the text ends where the answer begins.
        system: The system prompt; "" for the template's own, if it has one.
        picture: Whether there is a picture.

    Raises:
        UserError: The model has no chat template, or one without a place for a picture or the system prompt,
            or one that always writes a picture.
    """
    if not processor.chat_template:
        raise UserError(f"The model {name!r} has no chat template; put a chat_template.jinja next to its weights.")
    messages = [_message("system", system)] if system else []
    parts: list[dict[str, Any]] = [{"type": "image"}] if picture else []
    messages.append({"role": "user", "content": [*parts, {"type": "text", "text": query}]})
    if answer is not None:
        messages.append(_message("assistant", answer))
    try:
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None)
    except (jinja2.TemplateError, ValueError) as error:
        raise UserError(f"The chat template of the model {name!r} fails: {first_line(error)}") from None
    if system.strip() not in text:
        raise UserError(f"The chat template of the model {name!r} has no place for a system prompt; leave it out.")
    token = getattr(processor, "image_token", None)
    if token and not picture and str(token) in text:
        raise UserError(f"The model {name!r} cannot be asked without a picture; leave out queries that have none.")
    if token and picture and str(token) not in text:
        raise UserError(
            f"The chat template of the model {name!r} has no place for a picture; add one, or choose another model."
        )
    return text


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def tokenizer_options(processor: Any, text: str) -> dict[str, bool]:
    """How a rendered prompt is tokenized: as `apply_chat_template(…, tokenize=True)` does it.

    Where the template has written the first token (<s>, <bos>), the tokenizer must not; LLaVA's template
    leaves it to the tokenizer.
    """
    first = getattr(processor, "tokenizer", processor).bos_token
    return {"add_special_tokens": False} if first and text.startswith(first) else {}


def answer_form(processor: Any, name: str, stops: Sequence[int] = ()) -> AnswerForm:
    """How an answer stands in this model's conversations, read from its template.

    Templates that end no turn (LLaVA's) leave that to the tokenizer's end of sequence.

    Args:
        processor: The model's.
        name: The model's, for messages.
        stops: Ids that end an answer by the model's generation_config.

    Raises:
        UserError: As `render`, or nothing ends an answer.
    """
    tokenizer, word = getattr(processor, "tokenizer", processor), "it"
    prompt, whole = render(processor, name, "What?"), render(processor, name, "What?", word)
    special = special_tokens(processor)
    before = prompt[max([prompt.rfind(token) + len(token) for token in special if token in prompt], default=0) :]
    lead, _, tail = whole.removeprefix(prompt).partition(word) if whole.startswith(prompt) else ("", "", "")
    after = _tokens_after(tokenizer, before + lead + word, [tail])[0] if tail else []
    special_ids = {tokenizer.convert_tokens_to_ids(token) for token in special}
    end = next((place for place, token in enumerate(after) if token in special_ids), None)
    if end is not None:
        return AnswerForm(before, lead, after[: end + 1])
    last = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else next(iter(stops), None)
    if last is None:
        raise UserError(f"Nothing ends an answer of the model {name!r}: its tokenizer names no end of sequence.")
    return AnswerForm(before, lead, [last])


def answer_tokens(processor: Any, form: AnswerForm, answers: Sequence[str]) -> list[list[int]]:
    """The ids of answers as the model writes them after its prompt, without what ends the turn.

    They are tokenized together with the end of the prompt, since a byte-level tokenizer has other tokens for
    a word after a space, and since some tokenizers put a space of their own before a text.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = _tokens_after(tokenizer, form.before, [form.lead + answer for answer in answers])
    return [ids if answer else [] for ids, answer in zip(tokens, answers, strict=True)]


def _tokens_after(tokenizer: Any, before: str, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts that follow another text; no token spans both."""
    first = tokenizer(before, add_special_tokens=False)["input_ids"]
    both = tokenizer([before + text for text in texts], add_special_tokens=False)["input_ids"]
    return [
        ids[len(first) :] if ids[: len(first)] == first else tokenizer(text, add_special_tokens=False)["input_ids"]
        for ids, text in zip(both, texts, strict=True)
    ]
