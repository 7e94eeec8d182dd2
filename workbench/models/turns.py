"""One at a time: who asks a network waits while another thread asks or trains it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator

import torch

_locks: weakref.WeakKeyDictionary[torch.nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_new = threading.Lock()


@contextlib.contextmanager
def in_turn(network: torch.nn.Module) -> Iterator[None]:
    """Within this block, no other thread asks or trains the network. The same thread may enter it again.

    A training run holds it from the first to the last change, so that no answer comes from weights that are
    half trained.

    Args:
        network: The network without wrappers, as `bare` returns it.
    """
    with _new:
        lock = _locks.setdefault(network, threading.RLock())
    with lock:
        yield
