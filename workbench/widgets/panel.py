"""What all widgets that ask models share: work that leaves the kernel free, Stop, mistakes in one sentence, HTML in place of widgets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import ipywidgets as w

from ..errors import UserError, first_line
from .html import error_html

Asked = TypeVar("Asked")
_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="widgets")  # one for all widgets: they queue, and the kernel stays free


class Panel(w.VBox):
    """A widget with a line for messages and a Stop button, whose work is done in a thread of its own."""

    def __init__(self):
        self.message = w.HTML()
        self.stop = w.Button(description="Stop", disabled=True, tooltip="Stop at the next word")
        self._stopped = threading.Event()
        self.stop.on_click(lambda _: self._stopped.set())
        super().__init__()

    def start(self, ask: Callable[[], Asked], work: Callable[[Asked, Callable[[], bool]], None]) -> None:
        """Take down what is asked now, and work on it after what is being done, which is stopped at its next word.

        work: (what was asked, a function that tells whether to stop).
        """
        self._stopped.set()
        self._stopped = stopped = threading.Event()
        with self.mistakes_told():
            asked = ask()
            self.stop.disabled = False
            _worker.submit(self._run, work, asked, stopped)

    def _run(self, work: Callable[[Asked, Callable[[], bool]], None], asked: Asked, stopped: threading.Event) -> None:
        self.message.value = "<i>working …</i>"
        try:
            with self.mistakes_told():
                if not stopped.is_set():
                    work(asked, stopped.is_set)
                self.message.value = "stopped" if stopped.is_set() else ""
        except Exception as error:  # a widget has nowhere else to tell it
            self.message.value = error_html(f"This could not be done ({first_line(error)}); see whether the model still loads.")
        finally:
            self.stop.disabled = self._stopped is stopped

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
