"""Is this machine ready? Warnings where a version is below what was tried, and where something is known to break; none elsewhere."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import preflight


def statuses(monkeypatch, **versions):
    """What is said of packages, were these versions installed."""
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or installed(name))
    return {sentence.split()[0]: (status, sentence) for status, sentence in preflight.checks()}


def test_other_versions_than_ours_are_no_reason_to_warn(monkeypatch):
    lowest = preflight._lowest_versions()
    found = statuses(monkeypatch, torch=lowest["torch"] + ".0+cu130", transformers="5.99.0", numpy="2.99.1")
    assert found["torch"][0] == found["transformers"][0] == found["numpy"][0] == preflight.OK


def test_a_version_below_the_lowest_is_named(monkeypatch):
    status, sentence = statuses(monkeypatch, torch="2.9.1+cpu")["torch"]
    assert status == preflight.WARN and f"pip install -U 'torch>={preflight._lowest_versions()['torch']}'" in sentence


def test_where_nothing_is_a_checkout_the_installed_package_tells(monkeypatch):
    here = preflight._lowest_versions()
    monkeypatch.setattr(preflight, "PYPROJECT", Path("gone"))
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: [f"{package}<9,>={here[package]}" for package in here]
    )
    assert preflight._lowest_versions() == here and set(preflight.PACKAGES) <= set(here)


def test_another_package_of_our_import_name_is_a_failure(monkeypatch):
    statuses(monkeypatch, workbench="1.0")
    (found,) = preflight._known_to_break()
    assert found[0] == preflight.FAIL and "pip uninstall workbench" in found[1]


@pytest.mark.parametrize(
    "torchvision", ["raise RuntimeError('operator torchvision::nms does not exist')", "version = 1"]
)
def test_a_torchvision_that_does_not_go_with_torch_is_a_failure(tmp_path, torchvision):
    """In a process of its own, where it stands first on the path."""
    (tmp_path / "torchvision.py").write_text(torchvision)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from workbench.preflight import _known_to_break; print(*_known_to_break())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("nms does not exist" in done.stdout and "FAIL" in done.stdout) == torchvision.startswith("raise")
