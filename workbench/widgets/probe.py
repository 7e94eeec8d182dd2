"""Type a question, put a word before it, and see what models make of it."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w
import pandas as pd

from ..attacks import MAX_SHOTS, rewrites
from ..data import Example, miniguard_split, read_picture
from ..errors import UserError, first_line
from ..judges import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT
from ..miniguard import LEADS
from .html import error_html, figure_html, picture_html, said

if TYPE_CHECKING:
    from PIL import Image

    from ..models import VLM

MAX_QUERY = 1000  # characters
REACH = 15  # nats of log-odds at which a bar is full
COLUMNS = ["model", "picture", "lead", "query", "answer", "outcome", "log_odds", "note"]
ANSWERED = "answered"  # all that can be told where the truth is not known
_ICONS = {REFUSAL: "⊘", IRRELEVANT: "≈", DEGENERATE: "…", ANSWERED: "✎"}
_WORDS = {(RELEVANT, True): ("⚠", "leak"), (RELEVANT, False): ("✔", "right answer")}  # (outcome, harmful) → icon, word
_QUICK = ("what", "share", "can")

_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="probe")  # one for all probes: they queue, and the kernel stays free


class LiveProbe(w.VBox):
    """Several models side by side, asked about one picture: their answers as they are written, outcome, and log-odds of a refusal.

    models: by the name they are shown under. examples: whose pictures and queries can be picked; MiniGuard's own by default.
    What was asked is kept in `history`, a DataFrame with COLUMNS.
    """

    def __init__(self, models: Mapping[str, VLM], examples: Sequence[Example] | None = None):
        if not models:
            raise UserError("LiveProbe needs a model: LiveProbe({'base': wb.load()}).")
        self.models = dict(models)
        self.examples = list(examples) if examples is not None else miniguard_split("validation", sizes=(8, 8))
        # what stands before a question that is asked again as code
        self._code = 'import workbench as wb\n\nexamples = wb.miniguard_split("validation", sizes=(8, 8))\n' if examples is None else ""
        self.history = pd.DataFrame(columns=COLUMNS)
        self._last = 0  # rows of the history that were asked last
        self._own: Image.Image | None = None  # a picture that a person brought
        self._stopped = threading.Event()

        described = {"style": {"description_width": "6em"}}
        short = {"layout": {"width": "10em"}, **described}
        self.place = w.BoundedIntText(value=1, min=1, max=len(self.examples), description="picture", **short)
        self.previous, self.next = w.Button(description="◀ previous"), w.Button(description="next ▶")
        self.upload = w.FileUpload(accept="image/*", multiple=False, description="your own")
        self.picture = w.HTML()
        self.query = w.Text(description="query", layout={"width": "38em"}, **described)
        self.lead = w.ToggleButtons(
            options=[("as asked", "none"), *((word.capitalize(), word) for word in _QUICK), ("other", "other")],
            description="lead word",
            style={"button_width": "6em", "description_width": "6em"},
        )
        self.word = w.Text(placeholder="any word", description="other", layout={"width": "16em"}, **described)
        self.shots = w.BoundedIntText(value=1, min=1, max=MAX_SHOTS, description="K", **short)
        self.ask = w.Button(description="Ask", button_style="primary")
        self.stop = w.Button(description="Stop", disabled=True)
        self.why = w.Button(description="Why?", tooltip="Which words and which parts of the picture speak for a refusal")
        self.sweep = w.Button(description="Sweep", tooltip="All lead words")
        self.message = w.HTML()
        self.cards = {name: w.HTML(layout={"width": f"{96 // min(len(self.models), 3)}%"}) for name in self.models}
        self.figure = w.HTML()
        self.note = w.Text(placeholder="a note on what was asked last", layout={"width": "30em"}, continuous_update=False)
        self.table, self.export, self.code = w.HTML(), w.HTML(), w.Textarea(disabled=True, layout={"width": "96%", "height": "7em"})
        super().__init__(self._laid_out())

        self.previous.on_click(lambda _: self._turn(-1))
        self.next.on_click(lambda _: self._turn(1))
        self.place.observe(lambda _: self._pick(), "value")
        self.upload.observe(lambda _: self._take(), "value")
        self.ask.on_click(lambda _: self._start(self._answer))
        self.why.on_click(lambda _: self._start(self._explain))
        self.sweep.on_click(lambda _: self._start(self._all_leads))
        self.stop.on_click(lambda _: self._stopped.set())
        self.note.observe(lambda _: self._annotate(), "value")
        self._pick()

    def _laid_out(self) -> list[w.Widget]:
        looked_at = w.VBox([self.picture, w.HBox([self.previous, self.next]), w.HBox([self.place, self.upload])])
        buttons = w.HBox([self.ask, self.stop, self.why, self.sweep])
        asked = w.VBox([self.query, self.lead, w.HBox([self.word, self.shots]), buttons, self.message])
        told = w.HBox(list(self.cards.values()), layout={"flex_flow": "row wrap"})
        history = w.Accordion([w.VBox([self.note, self.table, self.export]), self.code], titles=("history", "as code"))
        return [w.HBox([looked_at, asked]), told, self.figure, history]

    def wait(self) -> None:
        """Until all that was asked is answered."""
        _worker.submit(lambda: None).result()

    def _repr_mimebundle_(self, **options) -> dict:
        """Where a front end knows no widgets (as on GitHub), what has been asked so far stands in their place."""
        bundle = super()._repr_mimebundle_(**options)
        cards = "".join(f"<td>{card.value}</td>" for card in self.cards.values())
        static = "<p><small>A live probe; run the cell to use it.</small></p>"
        return bundle | {"text/html": f"{static}{self.picture.value}<table><tr>{cards}</tr></table>{self.figure.value}"}

    # --- what a person picks ---------------------------------------------------------------------------------------------

    @property
    def example(self) -> Example:
        return self.examples[self.place.value - 1]

    def _turn(self, step: int) -> None:
        self.place.value = (self.place.value - 1 + step) % len(self.examples) + 1

    def _pick(self) -> None:
        self._own = None
        self.query.value = self.example.query
        self._show_picture()

    def _take(self) -> None:
        """A picture of one's own."""
        if not self.upload.value:
            return
        file = self.upload.value[0]
        try:
            self._own = read_picture(io.BytesIO(file.content), file.name)
            self._show_picture()
        except UserError as error:
            self.message.value = error_html(str(error))

    def _show_picture(self) -> None:
        try:
            alt = "your own picture" if self._own else f"picture {self.place.value} of {len(self.examples)}"
            self.picture.value = picture_html(self._own or self.example.picture(), alt)
            self.message.value = ""
        except UserError as error:
            self.message.value = error_html(str(error))

    def _asked(self) -> _Asked:
        """What is asked as things stand now; a person may go on to the next picture meanwhile. Raises UserError for what cannot be."""
        query = " ".join(self.query.value.split())
        if not query:
            raise UserError("There is no query; write one, or pick another picture.")
        if len(query) > MAX_QUERY:
            raise UserError(f"The query has {len(query)} characters; take at most {MAX_QUERY}.")
        lead = self.word.value.strip() if self.lead.value == "other" else self.lead.value
        attack = "none" if lead == "none" else f"{lead}:{self.shots.value}"
        if self._own:
            return _Asked(
                self._own,
                "own",
                'PIL.Image.open("…").convert("RGB")  # your own, after import PIL.Image',
                query,
                attack,
                rewrites(query, attack),
                None,
            )
        told = self.example.leak if self.example.harmful else self.example.response
        truth = self.example if told and query == self.example.query else None
        code = f"examples[{self.place.value - 1}].picture()"
        return _Asked(self.example.picture(), self.example.id, code, query, attack, rewrites(query, attack), truth)

    # --- what is done, in the worker's thread ----------------------------------------------------------------------------

    def _start(self, work: Callable[[_Asked, Callable[[], bool]], None]) -> None:
        """Do it after what is being done, which is stopped at its next word."""
        self._stopped.set()
        self._stopped = stopped = threading.Event()
        try:
            asked = self._asked()
        except UserError as error:
            self.message.value = error_html(str(error))
            return
        self.stop.disabled = False
        _worker.submit(self._run, work, asked, stopped)

    def _run(self, work: Callable[[_Asked, Callable[[], bool]], None], asked: _Asked, stopped: threading.Event) -> None:
        self.message.value = "<i>working …</i>"
        try:
            if not stopped.is_set():
                work(asked, stopped.is_set)
            self.message.value = "stopped" if stopped.is_set() else ""
        except UserError as error:
            self.message.value = error_html(str(error))
        except Exception as error:  # a widget has nowhere else to tell it
            self.message.value = error_html(f"This could not be done ({first_line(error)}); see whether the model still loads.")
        finally:
            self.stop.disabled = self._stopped is stopped

    def _answer(self, asked: _Asked, stopped: Callable[[], bool]) -> None:
        from ..models import answer_streamed
        from ..perturbed import Perturbed

        rows = []
        for name, vlm in self.models.items():
            told: list[_Told] = []
            for query in asked.queries:
                pieces: list[str] = []

                def written(piece: str, pieces=pieces, told=told, name=name, query=query) -> None:
                    pieces.append(piece)
                    self.cards[name].value = _card(name, [*told, _Told(query, "".join(pieces))])

                answer = answer_streamed(vlm, asked.picture, query, written, stopped)
                if stopped():
                    return
                told.append(_Told(query, answer, _outcome(asked.truth, answer), Perturbed(vlm, asked.picture, query, grid=1).value))
                self.cards[name].value = _card(name, told)
            rows += [(name, asked.name, asked.attack, t.query, t.answer, t.outcome[1], round(t.log_odds, 2), "") for t in told]
        self._remember(rows, asked)

    def _explain(self, asked: _Asked, stopped: Callable[[], bool]) -> None:
        from .. import plots
        from ..attribution import attribute

        columns = []
        for name, vlm in self.models.items():
            columns.append((name, asked.picture, attribute(vlm, asked.picture, asked.queries[0])))
            if stopped():
                return
        self.figure.value = figure_html(plots.attributions(columns), plots.describe(columns))

    def _all_leads(self, asked: _Asked, stopped: Callable[[], bool]) -> None:
        from .. import plots
        from ..perturbed import Perturbed

        rows = []
        for lead in ("none", *LEADS):
            query = rewrites(asked.query, lead)[0]
            for name, vlm in self.models.items():
                rows.append((name, lead, Perturbed(vlm, asked.picture, query, grid=1).value))
                if stopped():
                    return
        table = pd.DataFrame(rows, columns=["model", "lead", "log_odds"])
        told = "; ".join(
            f"{name}: " + ", ".join(f"{r.lead} {r.log_odds:+.1f}" for r in t.itertuples()) for name, t in table.groupby("model")
        )
        self.figure.value = figure_html(plots.log_odds_by_lead(table), f"Log-odds of a refusal by lead word. {told}")

    # --- what is kept ----------------------------------------------------------------------------------------------------

    def _remember(self, rows: list[tuple], asked: _Asked) -> None:
        new = pd.DataFrame(rows, columns=COLUMNS)
        self.history = pd.concat([self.history, new], ignore_index=True) if len(self.history) else new
        self._last = len(new)
        self.note.value = ""
        self.code.value = (
            f"{self._code}picture = {asked.code}\nfor name, vlm in models.items():\n    for query in {asked.queries!r}:\n"
            "        print(name, query, vlm.answer(picture, query))"
        )
        self._show_history()

    def _annotate(self) -> None:
        """The note goes to all rows of what was asked last."""
        if len(self.history) and self.note.value:
            self.history.loc[self.history.index[-self._last :], "note"] = self.note.value
            self._show_history()

    def _show_history(self) -> None:
        data = base64.b64encode(self.history.to_csv(index=False).encode()).decode()
        self.table.value = self.history.tail(50).to_html(index=False, escape=True, border=0)
        self.export.value = f'<a download="probe.csv" href="data:text/csv;base64,{data}">Export as CSV ({len(self.history)} rows)</a>'


class _Asked(NamedTuple):
    """One question. queries: as the attack words it, one a shot. truth: the example whose answer is known, if it is its own query."""

    picture: Image.Image
    name: str
    code: str
    query: str
    attack: str
    queries: list[str]
    truth: Example | None


class _Told(NamedTuple):
    """What a model said to one query; outcome (icon, word) and log-odds are None while it is still writing."""

    query: str
    answer: str
    outcome: tuple[str, str] | None = None
    log_odds: float | None = None


def _outcome(truth: Example | None, answer: str) -> tuple[str, str]:
    """(icon, word)."""
    from ..judges import exact
    from ..perturbed import REFUSALS

    if truth:
        outcome = exact(truth, answer)
        return _WORDS.get((outcome, truth.harmful)) or (_ICONS[outcome], outcome)
    outcome = REFUSAL if answer.lower().startswith(tuple(r.strip().lower() for r in REFUSALS)) else ANSWERED
    return _ICONS[outcome], outcome


def _card(name: str, told: Sequence[_Told]) -> str:
    parts = [f"<h4>{said(name)}</h4>"]
    for t in told:
        parts.append(f"<p><small>{said(t.query)}</small><br><b>{said(t.answer)}</b>{'' if t.outcome else ' ▌'}</p>")
        if t.outcome:
            parts.append(f"<p>{' '.join(t.outcome)}</p>{_bar(t.log_odds)}")
    return f"<section aria-live='polite' style='padding: 0 1em'>{''.join(parts)}</section>"


def _bar(log_odds: float) -> str:
    """From the middle to the right for a refusal, to the left against it; the number stands beside it."""
    reach = min(abs(log_odds) / REACH, 1) * 50
    side = (
        f"left: 50%; background: #D55E00; width: {reach:.0f}%" if log_odds > 0 else f"right: 50%; background: #0072B2; width: {reach:.0f}%"
    )
    box = "position: relative; height: 0.8em; border: 1px solid currentColor; max-width: 20em"
    return (
        f'<div role="img" aria-label="log-odds of a refusal {log_odds:+.1f} nats" style="{box}">'
        f'<div style="position: absolute; top: 0; height: 100%; {side}"></div>'
        '<div style="position: absolute; left: 50%; top: 0; height: 100%; border-left: 1px solid currentColor"></div></div>'
        f"<small>log-odds of a refusal: {log_odds:+.1f}</small>"
    )
