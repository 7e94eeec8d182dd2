"""The runtime is the pinned one, or the export says in one sentence what to do."""

import subprocess

import pytest

from workbench.errors import UserError
from workbench.runs import runs_in
from workbench.web import runtime
from workbench.web.runtime import FILES, TARBALL, integrity, runtime_files


def test_an_empty_folder_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=f"--runtime .* holds neither {TARBALL} nor .*; run `npm pack"):
        runtime_files(tmp_path)


@pytest.mark.parametrize("place", ["", "dist"])
def test_files_of_another_version_are_refused(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    for name in FILES:
        (tmp_path / place / name).write_bytes(b"another version")
    with pytest.raises(UserError, match=r"ort.wasm.bundle.min.mjs is not that of onnxruntime-web@1\.30\.0"):
        runtime_files(tmp_path)


def test_another_package_is_refused(tmp_path):
    (tmp_path / TARBALL).write_bytes(b"no package")
    with pytest.raises(UserError, match="its hash differs"):
        runtime_files(tmp_path)


def test_files_are_taken_if_their_hashes_are_the_pinned_ones(tmp_path, monkeypatch):
    contents = {name: name.encode() for name in FILES}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(runtime, "FILES", {name: integrity(content) for name, content in contents.items()})
    assert runtime_files(tmp_path) == contents


def test_without_npm_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with runs_in(tmp_path / "runs"), pytest.raises(UserError, match=r"npm cannot download .*; install npm, or give"):
        runtime_files()
    assert not (tmp_path / "runs" / TARBALL).exists()


def test_what_npm_says_is_quoted(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise subprocess.CalledProcessError(1, "npm", stderr="npm error one\nnpm error network\n")

    monkeypatch.setattr(runtime.subprocess, "run", fails)
    with runs_in(tmp_path / "runs"), pytest.raises(UserError, match=r"\(npm error network\)"):
        runtime_files()
