"""Preflight warns of versions below the lowest tested and fails on packages that break the workbench, not on others."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import preflight


def statuses(monkeypatch, **versions):
    """{package: check}, if these versions were installed."""
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or installed(name))
    return {sentence.split()[0]: (status, sentence) for status, sentence in preflight.checks()}


def test_other_versions_than_ours_are_no_reason_to_warn(monkeypatch):
    lowest = preflight._lowest_versions()
    checks = statuses(monkeypatch, torch=lowest["torch"] + ".0+cu130", transformers="5.99.0", numpy="2.99.1")
    assert checks["torch"][0] == checks["transformers"][0] == checks["numpy"][0] == preflight.OK


def test_a_version_below_the_lowest_is_named(monkeypatch):
    status, sentence = statuses(monkeypatch, torch="2.9.1+cpu")["torch"]
    assert status == preflight.WARN and f"pip install -U 'torch>={preflight._lowest_versions()['torch']}'" in sentence


def test_without_a_checkout_the_installed_package_says_what_is_required(monkeypatch):
    lowest = preflight._lowest_versions()
    monkeypatch.setattr(preflight, "PYPROJECT", Path("gone"))
    requirements = [f"{package}<9,>={version}" for package, version in lowest.items()]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    assert preflight._lowest_versions() == lowest and set(preflight.PACKAGES) <= set(lowest)


def test_another_package_of_our_import_name_is_a_failure(monkeypatch):
    statuses(monkeypatch, workbench="1.0")
    ((status, sentence),) = preflight._conflicts()
    assert status == preflight.FAIL and "pip uninstall workbench" in sentence


@pytest.mark.parametrize(
    "torchvision", ["raise RuntimeError('operator torchvision::nms does not exist')", "version = 1"]
)
def test_a_torchvision_that_does_not_go_with_torch_is_a_failure(tmp_path, torchvision):
    """In a separate process, in which it comes first on the path."""
    (tmp_path / "torchvision.py").write_text(torchvision)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from workbench.preflight import _conflicts; print(*_conflicts())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("nms does not exist" in done.stdout and "FAIL" in done.stdout) == torchvision.startswith("raise")
