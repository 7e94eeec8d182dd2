"""What all widgets that ask models share: work that leaves the kernel free, Stop, mistakes in one sentence, HTML in place of widgets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import ipywidgets as w

from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.errors import UserError, first_line
from workbench.widgets.html import error_html, spoken_html

Asked = TypeVar("Asked")
_worker = ThreadPoolExecutor(
    max_workers=1, thread_name_prefix="widgets"
)  # one for all widgets: they queue, and the kernel stays free


def given(examples: Sequence[Example] | None, widget: str, each: int = 8) -> list[Example]:
    """A widget's examples; by default so many harmful and as many harmless of MiniGuard's validation queries.

    Raises UserError where there are none.
    """
    if examples is None:
        return miniguard_split("validation", sizes=(each, each))
    if not examples:
        raise UserError(f"{widget} needs examples to show; there are none.")
    return list(examples)


class Panel(w.VBox):
    """A widget with a line for messages and a Stop button, whose work is done in a thread of its own."""

    def __init__(self):
        self.message, self.spoken = w.HTML(), w.HTML()  # the latter for screen readers alone
        self.stop = w.Button(
            description="Stop", disabled=True, tooltip="Stop at the next word, or after one model's explanation"
        )
        self._stopped = threading.Event()
        self.stop.on_click(lambda _: self._stopped.set())
        super().__init__()

    def start(self, ask: Callable[[], Asked], work: Callable[[Asked, Callable[[], bool]], str]) -> None:
        """Take down what is asked now, and work on it after what is being done, which is stopped at its next word.

        work: (what was asked, a function that tells whether to stop) → what came of it in a few words, for screen readers.
        """
        self._stopped.set()
        self._stopped = stopped = threading.Event()
        self.stop.disabled = True
        with self.mistakes_told():
            asked = ask()
            self.stop.disabled = False
            _worker.submit(self._run, work, asked, stopped)

    def _run(self, work: Callable[[Asked, Callable[[], bool]], str], asked: Asked, stopped: threading.Event) -> None:
        def say(message: str) -> None:
            if self._stopped is stopped:  # else something else has been asked meanwhile, and has the line
                self.message.value = message

        say("<i>working …</i>")
        try:
            told = "" if stopped.is_set() else work(asked, stopped.is_set)
            say("<span role='alert'>stopped</span>" if stopped.is_set() else "")
            self.spoken.value = spoken_html(told)
        except UserError as error:
            say(error_html(str(error)))
        except Exception as error:  # a widget has nowhere else to tell it
            say(error_html(f"This could not be done ({first_line(error)}); see whether the model still loads."))
        finally:
            if self._stopped is stopped:
                self.stop.disabled = True

    @contextlib.contextmanager
    def mistakes_told(self) -> Iterator[None]:
        """A person's mistake in this block becomes the message."""
        try:
            yield
        except UserError as error:
            self.message.value = error_html(str(error))

    def wait(self) -> None:
        """Until all that was asked is answered."""
        _worker.submit(lambda: None).result()

    def static(self) -> str:
        """What stands in the widget's place where a front end knows none (as on GitHub), as HTML."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options) -> dict:
        kind = type(self).__name__
        note = f"<p><small>{kind}, a live widget; run the cell to use it.</small></p>"
        return super()._repr_mimebundle_(**options) | {"text/html": note + self.static()}
