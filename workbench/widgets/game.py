"""Guess first: will it be refused? A game for workshops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w
import numpy as np
import pandas as pd

from workbench.attacks.one_word import rewrites
from workbench.data.first_words import audit, first_word
from workbench.intervals import wilson
from workbench.judges.outcomes import REFUSAL
from workbench.widgets.card import Told, card, told
from workbench.widgets.html import csv_html, picture_html, said, table_html
from workbench.widgets.panel import Panel, given

if TYPE_CHECKING:
    from workbench.data.example import Example
    from workbench.models.vlm import VLM

LEADS = ("none", "what", "share", "can")
COLUMNS = [
    "round",
    "picture",
    "query",
    "refused",
    "you",
    "audience",
    "words",
]  # the last three: who said that it would be refused
PLAYERS = {"you": "you", "audience": "the audience", "words": "word statistics"}


class Game(Panel):
    """Ten rounds or so: see a picture and a query, say whether the model will refuse it, then see what it does.

    Three play: the person who clicks; the audience, whose hands are counted; and the word statistics, which know nothing but the query's
    first word and say "refuse" where most training queries that begin so are harmful.

    vlm: the model to be guessed. examples: whose queries are asked, MiniGuard's validation queries by default. words: `audit`'s table of
    the model's training data, MiniGuard's by default. Which queries come, and after which lead word, depends on `seed`.
    What happened is kept in `history`, a DataFrame with COLUMNS.
    """

    def __init__(
        self,
        vlm: VLM,
        examples: Sequence[Example] | None = None,
        words: pd.DataFrame | None = None,
        rounds: int = 10,
        seed: int = 0,
    ):
        super().__init__()
        rng = np.random.default_rng(seed)
        examples = given(examples, "Game", each=40)
        order = rng.permutation(len(examples))[:rounds]
        self.questions = [(examples[i], rewrites(examples[i].query, LEADS[rng.integers(len(LEADS))])[0]) for i in order]
        self.vlm, self._words = vlm, audit("miniguard") if words is None else words
        self.history = pd.DataFrame(columns=COLUMNS)

        hands = {"min": 0, "max": 9999, "style": {"description_width": "9em"}, "layout": {"width": "15em"}}
        self.question, self.told, self.scores, self.export = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.hands_refuse = w.BoundedIntText(description="hands for refuse", **hands)
        self.hands_answer = w.BoundedIntText(description="hands for answer", **hands)
        self.refuse = w.Button(description="⊘ It will refuse")
        self.answer = w.Button(description="✎ It will answer")
        self.next = w.Button(description="next ▶", button_style="primary")
        wrapped = {"layout": {"flex_flow": "row wrap"}}
        self.children = [
            self.question,
            w.HBox([self.hands_refuse, self.hands_answer], **wrapped),
            w.HBox([self.refuse, self.answer, self.next], **wrapped),
            self.message,
            self.spoken,
            self.told,
            self.scores,
            self.export,
        ]
        self.refuse.on_click(lambda _: self._guess(True))
        self.answer.on_click(lambda _: self._guess(False))
        self.next.on_click(lambda _: self._ask())
        self._ask()

    def predicted(self, query: str) -> tuple[float, bool, str]:
        """What the first word says: the share of training queries that begin so and are harmful (of all queries where none begins so),
        whether that makes a refusal likelier than not, and both in a sentence."""
        word = first_word(query)
        counts = self._words[self._words.word == word]
        known = len(counts) > 0
        counts = (counts if known else self._words)[["harmful", "harmless"]].sum()
        share = counts.harmful / counts.sum()
        sentence = (
            f"Of the training queries that begin with “{word}”, {100 * share:.0f}% are harmful."
            if known
            else f"No training query begins with “{word}”; of all, {100 * share:.0f}% are harmful."
        )
        return share, bool(share > 0.5), sentence

    def static(self) -> str:
        return self.question.value + self.told.value + self.scores.value

    def _ask(self) -> None:
        """The next question whose picture can be read."""
        self.message.value = self.told.value = ""
        self.hands_refuse.value = self.hands_answer.value = 0
        place = len(self.history)
        while place < len(self.questions):
            example, query = self.questions[place]
            with self.mistakes_told():
                self._picture = example.picture()
                shown = picture_html(self._picture, "the picture")
                self.question.value = (
                    f"<p>Round {place + 1} of {len(self.questions)}</p>{shown}<p><b>{said(query)}</b></p>"
                )
                self._open(True)
                return
            del self.questions[place]
        self.question.value = ""
        self._open(False)

    def _open(self, guessing: bool) -> None:
        """Which buttons can be clicked: those to guess, or the one to go on."""
        for each in (self.refuse, self.answer, self.hands_refuse, self.hands_answer):
            each.disabled = not guessing
        self.next.disabled = guessing or len(self.history) == len(self.questions)

    def _guess(self, refuse: bool) -> None:
        if self.refuse.disabled:  # a second click on its way
            return
        self._open(False)
        self.next.disabled = True
        hands = self.hands_refuse.value, self.hands_answer.value
        audience = None if hands[0] == hands[1] else hands[0] > hands[1]
        self.start(lambda: _Guessed(*self.questions[len(self.history)], refuse, audience), self._reveal)

    def _reveal(self, guessed: _Guessed, stopped: Callable[[], bool]) -> str:
        try:
            answer = told(self.vlm, self._picture, guessed.query, guessed.example, self._show, lambda: False)
        except Exception:
            self._open(True)
            raise
        self._show(answer)
        refused = answer.outcome[1] == REFUSAL
        _, words, why = self.predicted(guessed.query)
        row = (len(self.history) + 1, guessed.example.id, guessed.query, refused, guessed.you, guessed.audience, words)
        self.history = pd.DataFrame([*self.history.itertuples(index=False), row], columns=COLUMNS)
        verdicts = [f"{PLAYERS[p]}: {_verdict(said_so, refused)}" for p, said_so in zip(PLAYERS, row[4:], strict=True)]
        self.told.value += f"<p>{' · '.join(verdicts)}</p><p><small>{said(why)}</small></p>"
        self.scores.value = table_html(self.score())
        self.export.value = csv_html(self.history, "game.csv")
        self._open(False)
        return f"{answer.answer}, {answer.outcome[1]}; {'; '.join(verdicts)}"

    def _show(self, answer: Told) -> None:
        self.told.value = card(self.vlm.name, "", [answer])

    def score(self) -> pd.DataFrame:
        """How often each player was right so far: player, right, of, and the share in per cent with its Wilson 95% interval."""
        rows = []
        for column, player in PLAYERS.items():
            played = self.history[self.history[column].notna()]
            right, n = int((played[column] == played.refused).sum()), len(played)
            if n:
                low, high = wilson(right, n)
                rows.append((player, right, n, f"{100 * right / n:.0f} ({100 * low:.0f} to {100 * high:.0f})"))
        return pd.DataFrame(rows, columns=["player", "right", "of", "per cent (95% interval)"])


class _Guessed(NamedTuple):
    """you, audience: whether they said that it would be refused; of the audience None where as many said the one as the other."""

    example: Example
    query: str
    you: bool
    audience: bool | None


def _verdict(said_refuse: bool | None, refused: bool) -> str:
    if said_refuse is None:
        return "–"
    return f"{'refuse' if said_refuse else 'answer'} {'✔ right' if said_refuse == refused else '✘ wrong'}"
