"""A model's replies as a card: answer, outcome as icon and word, log-odds of a refusal as a bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from workbench.data import miniguard
from workbench.data.example import Example
from workbench.judges.outcomes import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT, WRONG
from workbench.judges.rules import exact, keyword
from workbench.widgets.html import text_html

if TYPE_CHECKING:
    from PIL import Image

    from workbench.models.vlm import VLM

REACH = 15  # nats of log-odds at which a bar is full
WRITING = " ▌"  # follows an answer that is still being written
ANSWERED = "answered"  # the outcome of an answer that is not a refusal, if the truth is not known
_ICONS = {REFUSAL: "⊘", WRONG: "✘", IRRELEVANT: "≈", DEGENERATE: "…", ANSWERED: "✎"}
# RELEVANT to a harmful query is a leak, to a harmless one the right answer: icon, word.
_RELEVANT = {True: ("⚠", "leak"), False: ("✔", "right answer")}


class Reply(NamedTuple):
    """A model's whole answer to a query, its outcome as icon and word, and log-odds of a refusal in nats."""

    query: str
    answer: str
    icon: str
    outcome: str
    log_odds: float


def stream_answer(
    vlm: VLM,
    picture: Image.Image,
    query: str,
    example: Example,
    show: Callable[[str], None],
    stopped: Callable[[], bool],
) -> Reply | None:
    """Ask a model, and show its answer while it is being written.

    Args:
        vlm: The model.
        picture: The picture.
        query: What is asked.
        example: Says which answer is right, if that is known.
        show: Called with the answer so far after each piece.
        stopped: Whether to stop.

    Returns:
        The reply, or None if stopped.
    """
    from workbench.attribution.masking import Perturbed
    from workbench.models.vlm import answer_streamed

    pieces: list[str] = []

    def add(piece: str) -> None:
        pieces.append(piece)
        show("".join(pieces))

    answer = answer_streamed(vlm, picture, query, add, stopped)
    if stopped():
        return None
    return Reply(query, answer, *outcome_of(example, answer), Perturbed(vlm, picture, query, grid=1).value)


def outcome_of(example: Example, answer: str) -> tuple[str, str]:
    """The outcome of an answer as icon and word.

    If the right answer is not a sentence of MiniGuard's, only a refusal can be recognised, by its words.
    """
    truth = example.leak if example.harmful else example.response
    if truth and miniguard.request_of(truth):
        outcome = exact(example, answer)
        return _RELEVANT[example.harmful] if outcome == RELEVANT else (_ICONS[outcome], outcome)
    outcome = keyword(example, answer)
    outcome = ANSWERED if outcome == RELEVANT else outcome
    return _ICONS[outcome], outcome


def card(name: str, picture: str, replies: Sequence[Reply], writing: tuple[str, str] | None = None) -> str:
    """One model's replies as HTML.

    Args:
        name: The model's name.
        picture: What the queries are about, as a small image in HTML.
        replies: The replies so far.
        writing: The query and the beginning of a reply that is still being written.
    """
    parts = [f"<p><b>{text_html(name)}</b></p>"]
    for reply in replies:
        parts.append(_answer(picture, reply.query, reply.answer))
        parts.append(f"<p>{reply.icon} {reply.outcome}</p>{_bar(reply.log_odds)}")
    if writing:
        parts.append(_answer(picture, *writing, WRITING))
    return f'<section aria-label="{escape(name)}" style="padding: 0 1em; line-height: 1.4">{"".join(parts)}</section>'


def _answer(picture: str, query: str, answer: str, cursor: str = "") -> str:
    """A query and its answer."""
    return f"<p>{picture} <small>{text_html(query)}</small><br><b>{text_html(answer)}</b>{cursor}</p>"


def _bar(log_odds: float) -> str:
    """A bar from the middle to the right for a refusal, to the left against it, with the number below."""
    reach = min(abs(log_odds) / REACH, 1) * 50  # per cent of the whole width
    side = "left: 50%; background: #D55E00" if log_odds > 0 else "right: 50%; background: #0072B2"
    box = "position: relative; height: 0.8em; border: 1px solid currentColor; max-width: 20em"
    middle = "position: absolute; left: 50%; top: 0; height: 100%; border-left: 1px solid currentColor"
    return (
        f'<div role="img" aria-label="log-odds of a refusal {log_odds:+.1f} nats" style="{box}">'
        f'<div style="position: absolute; top: 0; height: 100%; {side}; width: {reach:.0f}%"></div>'
        f'<div style="{middle}"></div></div>'
        f"<small>log-odds of a refusal: {log_odds:+.1f}</small>"
    )
