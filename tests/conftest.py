"""What tests share: the shipped base, and one quick, real training run."""

import os

os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from workbench.data.splits import miniguard_split

REAL_VLGUARD = os.path.join(os.path.dirname(__file__), "..", "..", "shared", "data", "vlguard")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU here")


@pytest.fixture(scope="session")
def vlm():
    from workbench.models.load import load

    return load("miniguard", device="cpu")


@pytest.fixture(scope="session")
def sft(tmp_path_factory):
    """A quick safety fine-tuning: the shortcut is there within a few dozen steps."""
    return quick_sft(tmp_path_factory)


def quick_sft(tmp_path_factory, name="sft", words="vlguard"):
    """Trained once for all of xdist's processes, which share the parent of their folders."""
    from workbench.models.load import load
    from workbench.runs import kept
    from workbench.training.train import train

    base, folder = load("miniguard", device="cpu"), tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    data = miniguard_split("train", words=words)
    out = kept(name, folder / "quick" / name, lambda out: train(base, "sft", data, out=out, steps=60, lr=1e-3))
    return load("miniguard", out, device="cpu")


@pytest.fixture(scope="session")
def few():
    """A few examples of each kind, with VLGuard's lead words."""
    return miniguard_split("validation", seed=1, sizes=(12, 12))
