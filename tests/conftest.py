"""What tests share: the shipped base, and the study's fine-tuned model."""

import logging
import os
import shutil
import signal
import sys

os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from workbench.data.splits import miniguard_split
from workbench.runs import log

# Where tests are a shell's background job, it ignores Ctrl-C, and so would all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
REAL_VLGUARD = os.path.join(os.path.dirname(__file__), "..", "..", "shared", "data", "vlguard")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU here")


@pytest.fixture(autouse=True)
def _commands_leave_nothing_behind():
    """A command that ran in this process must not change what a later test sees.

    Its log and what it trusts are put back. A test that leaves its console with a file fails: later output would
    go there. `monkeypatch.setattr(out, "file", …)` does, since it restores what that property gave at the time.
    """
    yield
    if app := sys.modules.get("workbench.cli.app"):
        log.handlers, log.propagate = [], True
        log.setLevel(logging.NOTSET)
        app.trusted.clear()
        left, app.out._file = app.out._file, None
        assert left is None, "the command line's console no longer prints where sys.stdout goes"


@pytest.fixture(scope="session")
def vlm():
    from workbench.models.load import load

    return load("miniguard", device="cpu")


@pytest.fixture(scope="session")
def sft():
    """The study's safety fine-tuned model, stopped when it looks safe; notebook 02 trains it too."""
    from workbench.models.load import load
    from workbench.studies.methods import trained_adapter

    return load("miniguard", trained_adapter("sft-early"), device="cpu")


@pytest.fixture(scope="session")
def few():
    """A few examples of each kind, with VLGuard's lead words."""
    return miniguard_split("validation", seed=1, sizes=(12, 12))


@pytest.fixture(scope="session")
def tidy_llava(tmp_path_factory):
    """The folder of a tiny LLaVA with random weights, as it was written."""
    from tests.tiny_models import write_llava

    return write_llava(tmp_path_factory.mktemp("checkpoints") / "llava")


@pytest.fixture
def llava(tidy_llava, tmp_path):
    """A copy of that folder for one test, which may change its files."""
    return shutil.copytree(tidy_llava, tmp_path / "llava")
