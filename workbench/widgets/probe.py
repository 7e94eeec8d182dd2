"""Type a question, put a word before it, and see how models answer."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w
import pandas as pd

from workbench import plots
from workbench.attacks.one_word import MAX_SHOTS, rewrites
from workbench.attribution.methods import attribute
from workbench.data.example import Example
from workbench.data.miniguard import LEADS
from workbench.data.pictures import read_picture
from workbench.errors import UserError
from workbench.widgets.card import WRITING, Reply, card, stream_answer
from workbench.widgets.html import csv_html, figure_html, picture_html, table_html, text_html
from workbench.widgets.panel import Panel, Stopped, examples_or_default, pixels_for
from workbench.widgets.thumbnails import Thumbnails
from workbench.widgets.words import marked

if TYPE_CHECKING:
    from PIL import Image

    from workbench.models.vlm import VLM

MAX_QUERY = 1000  # characters
LARGEST = 1024  # pixels; an uploaded picture is scaled down to this, so that Why? does not take a minute
LATE = 0.5  # seconds after Enter in which text that was typed before it may still arrive from the browser
SMALL = 32  # pixels of a picture next to the answers
SHOWN = 50  # rows of the history that are shown
Row = tuple[str, str, str, str, str, str, float, str]  # of the history
COLUMNS = ["model", "picture", "lead", "query", "answer", "outcome", "log_odds", "note"]

_QUICK = ("what", "share", "can")  # lead words with a button
_WRAP = {"flex_flow": "row wrap"}
_DESCRIBED = {"style": {"description_width": "6em"}}
_SHORT = {"layout": {"width": "10em"}, **_DESCRIBED}
_MINIGUARD = 'import workbench as wb\n\nexamples = wb.miniguard_split("validation", sizes=(8, 8), pixels={})\n'


class LiveProbe(Panel):
    """Models asked about one picture: their answers as they are written, outcomes, log-odds of a refusal.

    Args:
        models: The models by the names to show them under.
        examples: Whose pictures and queries can be picked; by default some of MiniGuard's validation queries.

    Attributes:
        history: All answers, a row each with COLUMNS.
    """

    def __init__(self, models: Mapping[str, VLM], examples: Sequence[Example] | None = None) -> None:
        super().__init__()
        self.examples = examples_or_default(examples, "LiveProbe", models.values())
        self.models: dict[str, VLM] = {}
        self.cards: dict[str, w.HTML] = {}
        self.history = pd.DataFrame(columns=COLUMNS)
        self._examples_code = _MINIGUARD.format(pixels_for(models.values())) if examples is None else ""
        self._models_code = ""
        self._last = 0  # how many rows of the history belong to the last question
        self._upload: Image.Image | None = None  # the picture that a person uploaded, while it is shown
        self._entered = -math.inf  # when Enter was pressed in the query, in seconds

        self.thumbnails = Thumbnails(self.examples)
        self.place = w.BoundedIntText(value=1, min=1, max=len(self.examples), description="picture", **_SHORT)
        self.previous, self.next = w.Button(description="◀ previous"), w.Button(description="next ▶")
        self.upload = w.FileUpload(accept="image/*", multiple=False, description="your own")
        self.picture = w.HTML()
        self.query = w.Text(description="query", layout={"width": "38em", "max_width": "99%"}, **_DESCRIBED)
        self.unknown = w.HTML()  # words that the models do not know
        self.lead, self.word, self.shots = _lead_buttons(), _other_word(), _shots()
        self.ask = w.Button(description="Ask", button_style="primary")
        parts = "Which words and which parts of the picture speak for a refusal"
        self.why = w.Button(description="Why?", tooltip=parts)
        self.sweep = w.Button(description="Sweep", tooltip="All lead words")
        self.replies = w.HBox(layout=_WRAP)
        self.figure = w.HTML()
        self.note, self.table, self.export = _note(), w.HTML(), w.HTML()
        self.code = w.Textarea(description="code", layout={"width": "96%", "height": "7em"}, **_DESCRIBED)
        self.compare(models)
        self.children = self._arranged()
        self._connect()
        self._pick()

    def compare(self, models: Mapping[str, VLM], code: str = "") -> None:
        """Ask these models from now on.

        Args:
            models: The models by the names to show them under.
            code: Python that loads them as `models`, for the code that asks the same again.

        Raises:
            UserError: There is no model.
        """
        if not models:
            raise UserError("LiveProbe needs a model: LiveProbe({'base': wb.load()}).")
        self.models, self._models_code = dict(models), code
        # the minimal width puts cards below each other if there is little room
        layout = {"width": f"{96 // min(len(self.models), 3)}%", "min_width": "17em"}
        self.cards = {name: w.HTML(layout=layout) for name in self.models}
        self.replies.children = tuple(self.cards.values())

    def static(self) -> str:
        """The last answers and figure; the picture if nothing was asked."""
        if not len(self.history):
            return self.picture.value
        cards = "".join(f"<td>{each.value}</td>" for each in self.cards.values())
        return f"<table><tr>{cards}</tr></table>{self.figure.value}"

    def _arranged(self) -> list[w.Widget]:
        """The widgets in their places."""
        picture = w.VBox([self.picture, w.HBox([self.previous, self.next]), w.HBox([self.place, self.upload])])
        buttons = w.HBox([self.ask, self.stop, self.why, self.sweep], layout=_WRAP)
        word = w.HBox([self.word, self.shots], layout=_WRAP)
        question = w.VBox(
            [self.thumbnails, self.query, self.unknown, self.lead, word, buttons, self.message, self.spoken],
            layout={"flex": "1 1 22em", "min_width": "0"},
        )
        history = w.Accordion([w.VBox([self.note, self.table, self.export]), self.code], titles=("history", "as code"))
        return [w.HBox([picture, question], layout=_WRAP), self.replies, self.figure, history]

    def _connect(self) -> None:
        """Say what happens when a person picks, types or clicks."""
        self.thumbnails.observe(lambda change: change.new >= 0 and self._turn_to(change.new), "place")
        self.previous.on_click(lambda _: self._turn_to(self.place.value - 2))
        self.next.on_click(lambda _: self._turn_to(self.place.value))
        self.place.observe(lambda _: self._pick(), "value")
        self.upload.observe(lambda _: self._take_upload(), "value")
        self.query.on_msg(lambda _, content, buffers: content.get("event") == "submit" and self._enter())
        self.query.observe(lambda _: self._query_changed(), "value")
        self.lead.observe(lambda _: self._lead_chosen(), "value")
        self.word.observe(lambda _: self.lead.value == "other" and self._lead_chosen(), "value")
        self.ask.on_click(lambda _: self.start(self._question, self._answer))
        self.why.on_click(lambda _: self.start(self._question, self._explain))
        self.sweep.on_click(lambda _: self.start(self._question, self._all_leads))
        self.note.observe(lambda _: self._annotate(), "value")

    # What a person picks

    @property
    def example(self) -> Example:
        """The example that is picked; an uploaded picture may be shown instead."""
        return self.examples[self.place.value - 1]

    def _turn_to(self, place: int) -> None:
        """Turn to the picture at a place, counted from 0 around the ends, and away from an uploaded one."""
        number = place % len(self.examples) + 1
        if number == self.place.value:
            self._pick()
        self.place.value = number

    def _enter(self) -> None:
        """Ask, and remember that Enter was pressed."""
        self._entered = time.monotonic()
        self.ask.click()

    def _query_changed(self) -> None:
        """Mark unknown words, and ask again if this text was typed before Enter but arrived after it."""
        self._mark_unknown()
        if time.monotonic() - self._entered < LATE:
            self.ask.click()

    def _mark_unknown(self) -> None:
        """Mark the words of the query, and the lead word, that a model does not know."""
        lead = self.word.value if self.lead.value == "other" else ""
        self.unknown.value = marked(self.models.values(), f"{lead} {self.query.value}".strip()[:MAX_QUERY])

    def _pick(self) -> None:
        """Show the picked example with its query."""
        self._upload, self._entered = None, -math.inf
        self.query.value = self.example.query
        self._show_picture()

    def _take_upload(self) -> None:
        """Show a picture that a person uploaded."""
        if not self.upload.value:
            return
        file = self.upload.value[0]
        with self.errors_shown():
            self._upload = read_picture(io.BytesIO(file.content), file.name)
            self._upload.thumbnail((LARGEST, LARGEST))
            self._show_picture()
        self.upload.value = ()  # so that the same file can be uploaded again

    def _show_picture(self) -> None:
        self.thumbnails.show(self.place.value - 1, chosen=self._upload is None)
        self.picture.value = ""
        with self.errors_shown():
            alt = "your own picture" if self._upload else f"picture {self.place.value} of {len(self.examples)}"
            self.picture.value = picture_html(self._upload or self.example.picture(), alt)
            self.message.value = ""

    def _lead_chosen(self) -> None:
        """Ask at once, so that one sees what a word does."""
        self._mark_unknown()
        if self.lead.value != "other" or self.word.value.strip():
            self.ask.click()

    def _question(self) -> _Question:
        """What is asked now, since a person may turn to the next picture before it is answered.

        Raises:
            UserError: The query is empty or too long, the lead word is unusable, or the picture cannot be
                read.
        """
        query = " ".join(self.query.value.split())
        if not query:
            raise UserError("There is no query; write one, or pick another picture.")
        if len(query) > MAX_QUERY:
            raise UserError(f"The query has {len(query)} characters; shorten it to at most {MAX_QUERY}.")
        lead = self.word.value.strip() if self.lead.value == "other" else self.lead.value
        attack = "none" if lead == "none" else f"{lead}:{self.shots.value}"
        queries = rewrites(query, attack)
        if self._upload:
            example = Example("own", self._upload, query, harmful=False, response="")
            code = 'PIL.Image.open("…").convert("RGB")  # your own, after import PIL.Image'
            return _Question(example, self._upload, code, attack, queries)
        picture = self.example.picture()
        code = f"examples[{self.place.value - 1}].picture()"
        example = dataclasses.replace(self.example, query=query)
        if query != " ".join(self.example.query.split()):  # then nobody knows the right answer
            example = dataclasses.replace(example, response="", leak="")
        return _Question(example, picture, code, attack, queries)

    # What is done, in the worker's thread

    def _answer(self, question: _Question, stopped: Stopped) -> str:
        """Let every model answer, and remember the answers."""
        rows: list[Row] = []
        for (name, vlm), shown in zip(self.models.items(), self.cards.values(), strict=True):
            replies = _ask_model(name, vlm, question, shown, stopped)
            if replies is None:
                return ""
            rows += [
                (name, question.example.id, question.attack, r.query, r.answer, r.outcome, round(r.log_odds, 2), "")
                for r in replies
            ]
        self._remember(rows, question)
        return "; ".join(f"{model}: {answer}, {outcome}" for model, _, _, _, answer, outcome, _, _ in rows)

    def _explain(self, question: _Question, stopped: Stopped) -> str:
        """Draw which words and squares speak for a refusal."""
        columns = []
        for name, vlm in self.models.items():
            columns.append((name, question.picture, attribute(vlm, question.picture, question.queries[0])))
            if stopped():
                return ""
        self.figure.value = figure_html(plots.attributions(columns), plots.describe(columns))
        return "the attribution is drawn"

    def _all_leads(self, question: _Question, stopped: Stopped) -> str:
        """Draw the log-odds of a refusal for every lead word."""
        from workbench.attribution.values import target_values
        from workbench.models.pictures import ReadPictures

        rows = []
        read = {name: ReadPictures(vlm) for name, vlm in self.models.items()}
        for lead in ("none", *LEADS):
            query = rewrites(question.example.query, lead)[0]
            for name, pictures in read.items():
                rows.append((name, lead, *target_values(pictures, [question.picture], [query])))
                if stopped():
                    return ""
        table = pd.DataFrame(rows, columns=["model", "lead", "log_odds"])
        alt = f"Log-odds of a refusal by lead word. {_log_odds_in_words(table)}"
        figure = figure_html(plots.log_odds_by_lead(table), alt)
        picture = picture_html(question.picture, "about", SMALL)
        self.figure.value = f"<p>{picture} <small>{text_html(question.example.query)}</small></p>{figure}"
        return "the log-odds by lead word are drawn"

    # What is remembered

    def _remember(self, rows: list[Row], question: _Question) -> None:
        """Add rows to the history, and write the code that asks the same."""
        added = pd.DataFrame(rows, columns=COLUMNS)
        self.history = pd.concat([self.history, added], ignore_index=True) if len(self.history) else added
        self._last = 0  # emptying the note must not empty that of the rows before
        self.note.value = ""
        self._last = len(added)
        self.code.value = (
            f"{self._examples_code}{self._models_code}picture = {question.code}\n"
            "for name, vlm in models.items():\n"
            f"    for query in {question.queries!r}:\n"
            "        print(name, query, vlm.answer(picture, query))"
        )
        self._show_history()

    def _annotate(self) -> None:
        """Write the note into all rows of the last question."""
        if self._last:
            self.history.loc[self.history.index[-self._last :], "note"] = self.note.value
            self._show_history()

    def _show_history(self) -> None:
        self.table.value = table_html(self.history.tail(SHOWN))
        self.export.value = csv_html(self.history, "probe.csv")


class _Question(NamedTuple):
    """What is asked.

    Attributes:
        example: Its query is the one without a lead word; its response or leak is empty if not known.
        picture: The example's picture.
        code: Python that gives the picture.
        attack: The lead word and number of shots, as in what:3, or none.
        queries: The query as the attack words it, one for each shot.
    """

    example: Example
    picture: Image.Image
    code: str
    attack: str
    queries: list[str]


def _ask_model(name: str, vlm: VLM, question: _Question, shown: w.HTML, stopped: Stopped) -> list[Reply] | None:
    """Ask a model every query of a question, and show the replies as its card.

    Returns:
        The replies, or None if stopped.
    """
    picture = picture_html(question.picture, "about", SMALL)
    replies: list[Reply] = []
    for query in question.queries:

        def show(text: str, query: str = query) -> None:
            shown.value = card(name, picture, replies, writing=(query, text))

        reply = stream_answer(vlm, question.picture, query, question.example, show, stopped)
        if reply is None:
            shown.value = shown.value.replace(WRITING, " …")
            return None
        replies.append(reply)
        shown.value = card(name, picture, replies)
    return replies


def _log_odds_in_words(table: pd.DataFrame) -> str:
    """The table of log-odds by model and lead word, for those who cannot see its figure."""
    models = []
    for name, rows in table.groupby("model"):
        values = ", ".join(f"{lead} {log_odds:+.1f}" for lead, log_odds in zip(rows.lead, rows.log_odds, strict=True))
        models.append(f"{name}: {values}")
    return "; ".join(models)


def _lead_buttons() -> w.ToggleButtons:
    """Buttons for the lead word: none, a few words, or another one."""
    return w.ToggleButtons(
        options=[("as asked", "none"), *((word.capitalize(), word) for word in _QUICK), ("other", "other")],
        description="lead word",
        style={"button_width": "6em", "description_width": "6em"},
        layout={"width": "auto"},
    )


def _other_word() -> w.Text:
    """A field for another lead word, which is read when the person has finished typing."""
    options = {"continuous_update": False, "layout": {"width": "16em"}, **_DESCRIBED}
    return w.Text(placeholder="any word", description="other", **options)


def _shots() -> w.BoundedIntText:
    """A field for K, the number of ways in which the word is put first."""
    tooltip = "Ways to put the word first"
    return w.BoundedIntText(value=1, min=1, max=MAX_SHOTS, description="K", tooltip=tooltip, **_SHORT)


def _note() -> w.Text:
    """A field for a note, which is read when the person has finished typing."""
    options = {"continuous_update": False, "layout": {"width": "36em", "max_width": "100%"}, **_DESCRIBED}
    return w.Text(placeholder="a note on what was asked last", description="note", **options)
