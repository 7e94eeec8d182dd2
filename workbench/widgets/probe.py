"""Type a question, put a word before it, and see what models make of it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w
import pandas as pd

from workbench.attacks.one_word import MAX_SHOTS, rewrites
from workbench.data.example import Example, read_picture
from workbench.data.miniguard import LEADS
from workbench.errors import UserError
from workbench.widgets.card import WRITING, Told, card, told
from workbench.widgets.html import csv_html, figure_html, picture_html, said, table_html
from workbench.widgets.panel import Panel, given
from workbench.widgets.thumbnails import Thumbnails

if TYPE_CHECKING:
    from PIL import Image

    from workbench.models.vlm import VLM

MAX_QUERY = 1000  # characters
LARGEST = 1024  # pixels of the longer side of a picture of one's own; larger ones are made smaller
LATE = 0.5  # seconds after Enter in which what was typed before it may still arrive
COLUMNS = ["model", "picture", "lead", "query", "answer", "outcome", "log_odds", "note"]
_QUICK = ("what", "share", "can")


class LiveProbe(Panel):
    """Several models side by side, asked about one picture: their answers as they are written, outcome, and log-odds of a refusal.

    models: by the name they are shown under. examples: whose pictures and queries can be picked; MiniGuard's own by default.
    What was asked is kept in `history`, a DataFrame with COLUMNS.
    """

    def __init__(self, models: Mapping[str, VLM], examples: Sequence[Example] | None = None):
        super().__init__()
        self.examples = given(examples, "LiveProbe")
        # what stands before a question that is asked again as code
        self._code = (
            'import workbench as wb\n\nexamples = wb.miniguard_split("validation", sizes=(8, 8))\n'
            if examples is None
            else ""
        )
        self.history = pd.DataFrame(columns=COLUMNS)
        self._last = 0  # rows of the history that were asked last
        self._own: Image.Image | None = None  # a picture that a person brought
        self._entered = -math.inf  # when Enter was pressed in the query

        described = {"style": {"description_width": "6em"}}
        short = {"layout": {"width": "10em"}, **described}
        self.thumbnails = Thumbnails(self.examples)
        self.place = w.BoundedIntText(value=1, min=1, max=len(self.examples), description="picture", **short)
        self.previous, self.next = w.Button(description="◀ previous"), w.Button(description="next ▶")
        self.upload = w.FileUpload(accept="image/*", multiple=False, description="your own")
        self.picture = w.HTML()
        self.query = w.Text(description="query", layout={"width": "38em", "max_width": "99%"}, **described)
        self.lead = w.ToggleButtons(
            options=[("as asked", "none"), *((word.capitalize(), word) for word in _QUICK), ("other", "other")],
            description="lead word",
            style={"button_width": "6em", "description_width": "6em"},
            layout={"width": "auto"},
        )
        self.word = w.Text(
            placeholder="any word", description="other", continuous_update=False, layout={"width": "16em"}, **described
        )
        self.shots = w.BoundedIntText(
            value=1, min=1, max=MAX_SHOTS, description="K", tooltip="Ways to put the word first", **short
        )
        self.ask = w.Button(description="Ask", button_style="primary")
        self.why = w.Button(
            description="Why?", tooltip="Which words and which parts of the picture speak for a refusal"
        )
        self.sweep = w.Button(description="Sweep", tooltip="All lead words")
        self.told = w.HBox(layout={"flex_flow": "row wrap"})
        self.figure = w.HTML()
        self.note = w.Text(
            placeholder="a note on what was asked last",
            description="note",
            layout={"width": "36em", "max_width": "100%"},
            continuous_update=False,
            **described,
        )
        self.table, self.export = w.HTML(), w.HTML()
        self.code = w.Textarea(description="code", layout={"width": "96%", "height": "7em"}, **described)
        self.compare(models)
        self.children = self._laid_out()

        self.thumbnails.observe(lambda change: change.new >= 0 and self._turn_to(change.new), "place")
        self.previous.on_click(lambda _: self._turn_to(self.place.value - 2))
        self.next.on_click(lambda _: self._turn_to(self.place.value))
        self.place.observe(lambda _: self._pick(), "value")
        self.upload.observe(lambda _: self._take(), "value")
        self.ask.on_click(lambda _: self.start(self._asked, self._answer))
        self.query.on_msg(lambda _, content, buffers: content.get("event") == "submit" and self._enter())
        self.query.observe(lambda _: self._typed(), "value")
        self.lead.observe(lambda _: self._lead_chosen(), "value")
        self.word.observe(lambda _: self.lead.value == "other" and self._lead_chosen(), "value")
        self.why.on_click(lambda _: self.start(self._asked, self._explain))
        self.sweep.on_click(lambda _: self.start(self._asked, self._all_leads))
        self.note.observe(lambda _: self._annotate(), "value")
        self._pick()

    def compare(self, models: Mapping[str, VLM], code: str = "") -> None:
        """Ask these models from now on. code: what loads them, for whoever asks again. Raises UserError where there is none."""
        if not models:
            raise UserError("LiveProbe needs a model: LiveProbe({'base': wb.load()}).")
        self.models, self._loading = dict(models), code
        # a minimal width, so that cards stand one below the other where there is little room
        layout = {"width": f"{96 // min(len(self.models), 3)}%", "min_width": "17em"}
        self.cards = {name: w.HTML(layout=layout) for name in self.models}
        self.told.children = tuple(self.cards.values())

    def _laid_out(self) -> list[w.Widget]:
        looked_at = w.VBox([self.picture, w.HBox([self.previous, self.next]), w.HBox([self.place, self.upload])])
        buttons = w.HBox([self.ask, self.stop, self.why, self.sweep], layout={"flex_flow": "row wrap"})
        more = w.HBox([self.word, self.shots], layout={"flex_flow": "row wrap"})
        asked = w.VBox(
            [self.thumbnails, self.query, self.lead, more, buttons, self.message, self.spoken],
            layout={"flex": "1 1 22em", "min_width": "0"},
        )
        history = w.Accordion([w.VBox([self.note, self.table, self.export]), self.code], titles=("history", "as code"))
        return [w.HBox([looked_at, asked], layout={"flex_flow": "row wrap"}), self.told, self.figure, history]

    def static(self) -> str:
        """What was asked last, or could be."""
        if not len(self.history):
            return self.picture.value
        cards = "".join(f"<td>{each.value}</td>" for each in self.cards.values())
        return f"<table><tr>{cards}</tr></table>{self.figure.value}"

    # --- what a person picks ---------------------------------------------------------------------------------------------

    @property
    def example(self) -> Example:
        return self.examples[self.place.value - 1]

    def _turn_to(self, place: int) -> None:
        """To the picture at a place, counted from 0 and round the ends; a picture of one's own is left."""
        value = place % len(self.examples) + 1
        if value == self.place.value:
            self._pick()
        self.place.value = value

    def _enter(self) -> None:
        self._entered = time.monotonic()
        self.ask.click()

    def _typed(self) -> None:
        """What was typed before Enter may arrive after it: then that is what is asked."""
        if time.monotonic() - self._entered < LATE:
            self.ask.click()

    def _pick(self) -> None:
        self._own, self._entered = None, -math.inf
        self.query.value = self.example.query
        self._show_picture()

    def _take(self) -> None:
        """A picture of one's own."""
        if not self.upload.value:
            return
        file = self.upload.value[0]
        with self.mistakes_told():
            self._own = read_picture(io.BytesIO(file.content), file.name)
            self._own.thumbnail((LARGEST, LARGEST))  # so that Why? does not take a minute
            self._show_picture()
        self.upload.value = ()  # the same file may be brought again

    def _show_picture(self) -> None:
        self.thumbnails.show(self.place.value - 1, chosen=self._own is None)
        self.picture.value = ""
        with self.mistakes_told():
            alt = "your own picture" if self._own else f"picture {self.place.value} of {len(self.examples)}"
            self.picture.value = picture_html(self._own or self.example.picture(), alt)
            self.message.value = ""

    def _lead_chosen(self) -> None:
        """Ask at once, so that one sees what a word does."""
        if self.lead.value != "other" or self.word.value.strip():
            self.ask.click()

    def _asked(self) -> _Asked:
        """What is asked as things stand now; a person may go on to the next picture meanwhile. Raises UserError for what cannot be."""
        query = " ".join(self.query.value.split())
        if not query:
            raise UserError("There is no query; write one, or pick another picture.")
        if len(query) > MAX_QUERY:
            raise UserError(f"The query has {len(query)} characters; take at most {MAX_QUERY}.")
        lead = self.word.value.strip() if self.lead.value == "other" else self.lead.value
        attack = "none" if lead == "none" else f"{lead}:{self.shots.value}"
        queries = rewrites(query, attack)
        if self._own:
            code = 'PIL.Image.open("…").convert("RGB")  # your own, after import PIL.Image'
            return _Asked(self._own, "own", code, query, attack, queries, None)
        truth = self.example if query == " ".join(self.example.query.split()) else None
        code = f"examples[{self.place.value - 1}].picture()"
        return _Asked(self.example.picture(), self.example.id, code, query, attack, queries, truth)

    # --- what is done, in the worker's thread ----------------------------------------------------------------------------

    def _answer(self, asked: _Asked, stopped: Callable[[], bool]) -> str:
        rows, small = [], picture_html(asked.picture, "about", 32)
        for (name, vlm), shown in zip(self.models.items(), self.cards.values(), strict=True):
            answers: list[Told] = []
            for query in asked.queries:

                def show(so_far: Told, name=name, shown=shown, answers=answers) -> None:
                    shown.value = card(name, small, [*answers, so_far])

                answer = told(vlm, asked.picture, query, asked.truth, show, stopped)
                if answer is None:
                    shown.value = shown.value.replace(WRITING, " …")
                    return ""
                show(answer)
                answers.append(answer)
            rows += [
                (name, asked.name, asked.attack, t.query, t.answer, t.outcome[1], round(t.log_odds, 2), "")
                for t in answers
            ]
        self._remember(rows, asked)
        return "; ".join(f"{row[0]}: {row[4]}, {row[5]}" for row in rows)

    def _explain(self, asked: _Asked, stopped: Callable[[], bool]) -> str:
        from workbench import plots
        from workbench.attribution.methods import attribute

        columns = []
        for name, vlm in self.models.items():
            columns.append((name, asked.picture, attribute(vlm, asked.picture, asked.queries[0])))
            if stopped():
                return ""
        self.figure.value = figure_html(plots.attributions(columns), plots.describe(columns))
        return "the attribution is drawn"

    def _all_leads(self, asked: _Asked, stopped: Callable[[], bool]) -> str:
        from workbench import plots
        from workbench.attribution.masking import Perturbed

        rows = []
        for lead in ("none", *LEADS):
            query = rewrites(asked.query, lead)[0]
            for name, vlm in self.models.items():
                rows.append((name, lead, Perturbed(vlm, asked.picture, query, grid=1).value))
                if stopped():
                    return ""
        table = pd.DataFrame(rows, columns=["model", "lead", "log_odds"])
        in_words = "; ".join(
            f"{name}: " + ", ".join(f"{r.lead} {r.log_odds:+.1f}" for r in t.itertuples())
            for name, t in table.groupby("model")
        )
        drawn = figure_html(plots.log_odds_by_lead(table), f"Log-odds of a refusal by lead word. {in_words}")
        self.figure.value = (
            f"<p>{picture_html(asked.picture, 'about', 32)} <small>{said(asked.query)}</small></p>{drawn}"
        )
        return "the log-odds by lead word are drawn"

    # --- what is kept ----------------------------------------------------------------------------------------------------

    def _remember(self, rows: list[tuple], asked: _Asked) -> None:
        new = pd.DataFrame(rows, columns=COLUMNS)
        self.history = pd.concat([self.history, new], ignore_index=True) if len(self.history) else new
        self._last = 0  # the note is for what comes
        self.note.value = ""
        self._last = len(new)
        self.code.value = (
            f"{self._code}{self._loading}picture = {asked.code}\nfor name, vlm in models.items():\n    for query in {asked.queries!r}:\n"
            "        print(name, query, vlm.answer(picture, query))"
        )
        self._show_history()

    def _annotate(self) -> None:
        """The note goes to all rows of what was asked last."""
        if self._last:
            self.history.loc[self.history.index[-self._last :], "note"] = self.note.value
            self._show_history()

    def _show_history(self) -> None:
        self.table.value = table_html(self.history.tail(50))
        self.export.value = csv_html(self.history, "probe.csv")


class _Asked(NamedTuple):
    """One question. queries: as the attack words it, one a shot. truth: the example whose answer is known, if it is its own query."""

    picture: Image.Image
    name: str
    code: str
    query: str
    attack: str
    queries: list[str]
    truth: Example | None
