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
    return quick_sft(tmp_path_factory.mktemp("runs") / "sft")


def quick_sft(out, words="vlguard"):
    from workbench.models.load import load
    from workbench.training.train import train

    data = miniguard_split("train", words=words)
    train(load("miniguard", device="cpu"), "sft", data, out=out, steps=60, lr=1e-3)
    return load("miniguard", out, device="cpu")


@pytest.fixture(scope="session")
def few():
    """A few examples of each kind, with VLGuard's lead words."""
    return miniguard_split("validation", seed=1, sizes=(12, 12))
