"""A game for workshops: guess first whether a query will be refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w
import numpy as np
import pandas as pd

from workbench.attacks.one_word import rewrites
from workbench.data.example import Example
from workbench.data.first_words import audit, first_word
from workbench.intervals import wilson
from workbench.judges.outcomes import REFUSAL
from workbench.widgets.card import Reply, card, stream_answer
from workbench.widgets.html import csv_html, picture_html, table_html, text_html
from workbench.widgets.panel import Panel, Stopped, examples_or_default

if TYPE_CHECKING:
    from workbench.models.vlm import VLM

LEADS = ("none", "what", "share", "can")  # lead words of the queries
# Who guesses, by column of the history, where it says whether they guessed a refusal.
PLAYERS = {"you": "you", "audience": "the audience", "words": "word statistics"}
COLUMNS = ["round", "picture", "query", "refused", *PLAYERS]
HANDS = {"min": 0, "max": 9999, "style": {"description_width": "9em"}, "layout": {"width": "15em"}}


class Game(Panel):
    """Several rounds: see a picture and a query, guess whether the model will refuse, see what it does.

    There are three players: the person who clicks; the audience, whose hands are counted; and the word
    statistics, which know only the query's first word and guess a refusal if most training queries that begin
    with it are harmful.

    Args:
        vlm: The model.
        examples: Whose queries are asked; by default some of MiniGuard's validation queries.
        words: `audit`'s table of the model's training data; by default of MiniGuard's.
        rounds: How many rounds to play at most.
        seed: Decides which queries are asked, and after which lead words.

    Attributes:
        history: What happened, a row for each round with COLUMNS.
        questions: Each an example and what is asked about its picture.
    """

    def __init__(
        self,
        vlm: VLM,
        examples: Sequence[Example] | None = None,
        words: pd.DataFrame | None = None,
        rounds: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.questions = _questions(examples_or_default(examples, "Game", [vlm], each=40), rounds, seed)
        self.vlm, self._words = vlm, audit("miniguard") if words is None else words
        self.history = pd.DataFrame(columns=COLUMNS)

        self.question, self.reply, self.scores = self.results = [w.HTML(), w.HTML(), w.HTML()]
        self.export = w.HTML()
        self.hands_refuse = w.BoundedIntText(description="hands for refuse", **HANDS)
        self.hands_answer = w.BoundedIntText(description="hands for answer", **HANDS)
        self.refuse = w.Button(description="⊘ It will refuse")
        self.answer = w.Button(description="✎ It will answer")
        self.next = w.Button(description="next ▶", button_style="primary")
        wrapped = {"layout": {"flex_flow": "row wrap"}}
        hands = w.HBox([self.hands_refuse, self.hands_answer], **wrapped)
        buttons = w.HBox([self.refuse, self.answer, self.next], **wrapped)
        messages, outcome = [self.message, self.spoken], [self.reply, self.scores, self.export]
        self.children = [self.question, hands, buttons, *messages, *outcome]
        self.refuse.on_click(lambda _: self._guess(True))
        self.answer.on_click(lambda _: self._guess(False))
        self.next.on_click(lambda _: self._ask())
        self._ask()

    def predicted(self, query: str) -> tuple[float, bool, str]:
        """What the query's first word says.

        Returns:
            The share of harmful ones among the training queries that begin with this word (among all, if none
            does); whether that makes a refusal likelier than not; and both in a sentence.
        """
        word = first_word(query)
        counts = self._words[self._words.word == word]
        known = len(counts) > 0
        totals = (counts if known else self._words)[["harmful", "harmless"]].sum()
        share = totals.harmful / totals.sum()
        sentence = (
            f"Of the training queries that begin with “{word}”, {100 * share:.0f}% are harmful."
            if known
            else f"No training query begins with “{word}”; of all, {100 * share:.0f}% are harmful."
        )
        return share, bool(share > 0.5), sentence

    def score(self) -> pd.DataFrame:
        """How often each player was right so far.

        Returns:
            Columns player, right, of, and the share in per cent with its Wilson 95% interval.
        """
        rows = []
        for column, player in PLAYERS.items():
            played = self.history[self.history[column].notna()]
            right, n = int((played[column] == played.refused).sum()), len(played)
            if n:
                low, high = wilson(right, n)
                rows.append((player, right, n, f"{100 * right / n:.0f} ({100 * low:.0f} to {100 * high:.0f})"))
        return pd.DataFrame(rows, columns=["player", "right", "of", "per cent (95% interval)"])

    def _ask(self) -> None:
        """Show the next question, leaving out those whose picture cannot be read."""
        self.message.value = self.reply.value = ""
        self.hands_refuse.value = self.hands_answer.value = 0
        place = len(self.history)
        while place < len(self.questions):
            example, query = self.questions[place]
            with self.errors_shown():
                picture = example.picture()
                self.questions[place] = (dataclasses.replace(example, image=picture), query)  # the file is read once
                count = f"<p>Round {place + 1} of {len(self.questions)}</p>"
                shown = picture_html(picture, "the picture")
                self.question.value = f"{count}{shown}<p><b>{text_html(query)}</b></p>"
                self._enable(guessing=True)
                return
            del self.questions[place]
        self.question.value = ""
        self._enable(guessing=False)

    def _enable(self, guessing: bool) -> None:
        """Enable the controls for a guess, or else the button for the next round if there is one."""
        for control in (self.refuse, self.answer, self.hands_refuse, self.hands_answer):
            control.disabled = not guessing
        self.next.disabled = guessing or len(self.history) == len(self.questions)

    def _guess(self, refuse: bool) -> None:
        """Take down what the players guess, and ask the model."""
        if self.refuse.disabled:  # a second click that was already on its way
            return
        self._enable(guessing=False)
        self.next.disabled = True
        hands_refuse, hands_answer = self.hands_refuse.value, self.hands_answer.value
        audience = None if hands_refuse == hands_answer else hands_refuse > hands_answer
        self.start(lambda: _Guess(*self.questions[len(self.history)], refuse, audience), self._reveal)

    def _reveal(self, guess: _Guess, stopped: Stopped) -> str:
        """Ask the model, and say who was right."""
        try:
            reply = self._reply(guess)
        except Exception:
            self._enable(guessing=True)
            raise
        refused = reply.outcome == REFUSAL
        _, by_words, why = self.predicted(guess.query)
        guesses = (guess.you, guess.audience, by_words)
        row = (len(self.history) + 1, guess.example.id, guess.query, refused, *guesses)
        self.history = pd.DataFrame([*self.history.itertuples(index=False), row], columns=COLUMNS)
        verdicts = [
            f"{player}: {_verdict(guessed, refused)}" for player, guessed in zip(PLAYERS.values(), guesses, strict=True)
        ]
        self.reply.value += f"<p>{' · '.join(verdicts)}</p><p><small>{text_html(why)}</small></p>"
        self.scores.value = table_html(self.score())
        self.export.value = csv_html(self.history, "game.csv")
        self._enable(guessing=False)
        return f"{reply.answer}, {reply.outcome}; {'; '.join(verdicts)}"

    def _reply(self, guess: _Guess) -> Reply:
        """The model's reply, shown while it is being written. Stop has no effect on it."""

        def show(text: str) -> None:
            self.reply.value = card(self.vlm.name, "", [], writing=(guess.query, text))

        reply = stream_answer(self.vlm, guess.example.picture(), guess.query, guess.example, show, lambda: False)
        assert reply  # since it is never stopped
        self.reply.value = card(self.vlm.name, "", [reply])
        return reply


class _Guess(NamedTuple):
    """A question and the guesses.

    Attributes:
        example: Has the picture.
        query: What is asked.
        you: Whether the person guessed a refusal.
        audience: Whether the audience did; None for as many hands on either side.
    """

    example: Example
    query: str
    you: bool
    audience: bool | None


def _questions(examples: Sequence[Example], rounds: int, seed: int) -> list[tuple[Example, str]]:
    """Draw examples, and a lead word for the query of each."""
    rng = np.random.default_rng(seed)
    questions = []
    for i in rng.permutation(len(examples))[:rounds]:
        lead = LEADS[rng.integers(len(LEADS))]
        questions.append((examples[i], rewrites(examples[i].query, lead)[0]))
    return questions


def _verdict(guessed_refusal: bool | None, refused: bool) -> str:
    """A guess, and whether it was right."""
    if guessed_refusal is None:
        return "–"
    guess = "refuse" if guessed_refusal else "answer"
    return f"{guess} ✔ right" if guessed_refusal == refused else f"{guess} ✘ wrong"
