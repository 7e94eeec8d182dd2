"""What a model said to a question, as a card: the answer, its outcome as sign and word, and the log-odds of a refusal as a bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from workbench.data import miniguard
from workbench.judges.outcomes import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT
from workbench.judges.rules import exact, keyword
from workbench.widgets.html import said

if TYPE_CHECKING:
    from PIL import Image

    from workbench.data.example import Example
    from workbench.models.vlm import VLM

REACH = 15  # nats of log-odds at which a bar is full
WRITING = " ▌"  # behind an answer that is still being written
ANSWERED = "answered"  # all that can be told where the truth is not known
_ICONS = {REFUSAL: "⊘", IRRELEVANT: "≈", DEGENERATE: "…", ANSWERED: "✎"}
_WORDS = {(RELEVANT, True): ("⚠", "leak"), (RELEVANT, False): ("✔", "right answer")}  # (outcome, harmful) → icon, word


class Told(NamedTuple):
    """What a model said to one query; outcome (icon, word) and log-odds (nats) are None while it is still writing."""

    query: str
    answer: str
    outcome: tuple[str, str] | None = None
    log_odds: float | None = None


def told(
    vlm: VLM,
    picture: Image.Image,
    query: str,
    truth: Example | None,
    show: Callable[[Told], None],
    stopped: Callable[[], bool],
) -> Told | None:
    """Ask, and `show` the answer piece by piece; None where stopped. truth: the example whose answer is known, if it is its query."""
    from workbench.attribution.masking import Perturbed
    from workbench.models.vlm import answer_streamed

    pieces: list[str] = []

    def written(piece: str) -> None:
        pieces.append(piece)
        show(Told(query, "".join(pieces)))

    answer = answer_streamed(vlm, picture, query, written, stopped)
    if stopped():
        return None
    return Told(query, answer, outcome_of(truth, answer), Perturbed(vlm, picture, query, grid=1).value)


def outcome_of(truth: Example | None, answer: str) -> tuple[str, str]:
    """(icon, word). Where the right answer is not MiniGuard's, all that can be told, by words, is whether it is a refusal."""
    right = truth and (truth.leak if truth.harmful else truth.response)
    if right and miniguard.is_sentence(right):
        outcome = exact(truth, answer)
        return _WORDS.get((outcome, truth.harmful)) or (_ICONS[outcome], outcome)
    outcome = keyword(truth, answer)
    outcome = ANSWERED if outcome == RELEVANT else outcome
    return _ICONS[outcome], outcome


def card(name: str, picture: str, answers: Sequence[Told]) -> str:
    """One model's answers as HTML. picture: what they are about, small, as HTML too."""
    parts = [f"<p><b>{said(name)}</b></p>"]
    for t in answers:
        parts.append(
            f"<p>{picture} <small>{said(t.query)}</small><br><b>{said(t.answer)}</b>{'' if t.outcome else WRITING}</p>"
        )
        if t.outcome:
            parts.append(f"<p>{' '.join(t.outcome)}</p>{_bar(t.log_odds)}")
    return f'<section aria-label="{escape(name)}" style="padding: 0 1em; line-height: 1.4">{"".join(parts)}</section>'


def _bar(log_odds: float) -> str:
    """From the middle to the right for a refusal, to the left against it; the number stands beside it."""
    reach = min(abs(log_odds) / REACH, 1) * 50
    side = "left: 50%; background: #D55E00" if log_odds > 0 else "right: 50%; background: #0072B2"
    box = "position: relative; height: 0.8em; border: 1px solid currentColor; max-width: 20em"
    return (
        f'<div role="img" aria-label="log-odds of a refusal {log_odds:+.1f} nats" style="{box}">'
        f'<div style="position: absolute; top: 0; height: 100%; {side}; width: {reach:.0f}%"></div>'
        '<div style="position: absolute; left: 50%; top: 0; height: 100%; border-left: 1px solid currentColor"></div></div>'
        f"<small>log-odds of a refusal: {log_odds:+.1f}</small>"
    )
