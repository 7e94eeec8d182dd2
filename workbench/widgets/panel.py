"""What widgets that ask models share: work in a thread, Stop, errors in one sentence, static HTML."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import ipywidgets as w

from workbench.data.example import Example
from workbench.data.miniguard import SIZE
from workbench.data.splits import miniguard_split
from workbench.errors import UserError, first_line
from workbench.models.configuration import picture_size
from workbench.models.vlm import VLM, bare
from workbench.widgets.html import error_html, spoken_html

Request = TypeVar("Request")
Stopped = Callable[[], bool]  # tells work whether to stop
# One thread for all widgets, so that they take turns and the notebook's kernel stays free.
_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="widgets")


def examples_or_default(
    examples: Sequence[Example] | None, widget: str, models: Iterable[VLM] = (), each: int = 8
) -> list[Example]:
    """The examples of a widget.

    Args:
        examples: What the user passed.
        widget: The widget's name.
        models: Which are asked; MiniGuard's pictures are drawn in the first one's size.
        each: How many harmful and how many harmless queries of MiniGuard's validation split to use by
            default.

    Raises:
        UserError: There are no examples.
    """
    if examples is None:
        return miniguard_split("validation", sizes=(each, each), pixels=pixels_for(models))
    if not examples:
        raise UserError(f"{widget} needs examples to show; there are none.")
    return list(examples)


def pixels_for(models: Iterable[VLM]) -> int:
    """Width and height of MiniGuard's pictures for the first of some models."""
    return next((picture_size(bare(vlm.model).config) for vlm in models), SIZE)


class Panel(w.VBox):
    """A widget with a line for messages and a Stop button, which works in a thread.

    Attributes:
        message: The line, which says what is being done or what went wrong.
        spoken: Messages for screen readers alone.
        stop: The button.
        results: What the widget has to show for its work, in the order of reading.
    """

    def __init__(self) -> None:
        self.message, self.spoken = w.HTML(), w.HTML()
        self.stop = w.Button(
            description="Stop", disabled=True, tooltip="Stop at the next word, or after one model's explanation"
        )
        self._stopped = threading.Event()
        self.stop.on_click(lambda _: self._stopped.set())
        self.results: list[w.HTML] = []
        super().__init__()

    def static(self) -> str:
        """HTML that is shown if a front end cannot show widgets, e.g. on GitHub."""
        return "".join(result.value for result in self.results)

    def start(self, request: Callable[[], Request], work: Callable[[Request, Stopped], str]) -> None:
        """Stop what is being done, and do this next.

        Args:
            request: Called at once; returns what a person asks for now. A UserError becomes the message.
            work: Called in the worker's thread with the request; returns the result in a few words, for
                screen readers.
        """
        self._stopped.set()
        self._stopped = stopped = threading.Event()
        self.stop.disabled = True
        with self.errors_shown():
            requested = request()
            self.stop.disabled = False
            _worker.submit(self._run, work, requested, stopped)

    def _run(self, work: Callable[[Request, Stopped], str], request: Request, stopped: threading.Event) -> None:
        """Do the work, and say how it goes."""

        def say(message: str) -> None:
            if self._stopped is stopped:  # otherwise the line belongs to a newer request
                self.message.value = message

        say("<i>working …</i>")
        try:
            result = "" if stopped.is_set() else work(request, stopped.is_set)
            say("<span role='alert'>stopped</span>" if stopped.is_set() else "")
            self.spoken.value = spoken_html(result)
        except UserError as error:
            say(error_html(str(error)))
        except Exception as error:  # a widget has nowhere else to report it
            say(error_html(f"Something went wrong ({first_line(error)}); check that the model still loads."))
        finally:
            if self._stopped is stopped:
                self.stop.disabled = True

    @contextlib.contextmanager
    def errors_shown(self) -> Iterator[None]:
        """Within this block, a UserError becomes the message."""
        try:
            yield
        except UserError as error:
            self.message.value = error_html(str(error))

    def wait(self) -> None:
        """Wait until all requests are done."""
        _worker.submit(lambda: None).result()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """What Jupyter shows: the widget, or `static` if the front end cannot show widgets."""
        kind = type(self).__name__
        note = f"<p><small>{kind}, a live widget; run the cell to use it.</small></p>"
        return (super()._repr_mimebundle_(**options) or {}) | {"text/html": note + self.static()}
