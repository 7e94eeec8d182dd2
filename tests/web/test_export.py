"""The page's folder: whole or not at all, sealed by hashes, and free of other hosts."""

import json
import re

import pytest

from tests.commands import workbench
from workbench.errors import UserError
from workbench.web import export
from workbench.web.export import PAGE, export_web
from workbench.web.models import BASE, Shown
from workbench.web.runtime import FILES, integrity


@pytest.fixture
def runtime(monkeypatch):
    """Stands for the runtime, which these tests do not run: tests/browser does."""
    monkeypatch.setattr(export, "runtime_files", lambda folder: {name: b"" for name in FILES})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "runtime_files", lambda folder: {name: b"" for name in FILES})
        folder = tmp_path_factory.mktemp("page") / "site"
        sizes = export_web(folder, "miniguard", [BASE])
    assert set(sizes) == {"models", "data", "runtime", "page"} and 2e6 < sizes["models"] < 2.4e6
    return folder


def test_every_file_is_in_the_manifest_with_its_hash(site):
    hashes = json.loads((site / "data" / "manifest.json").read_text())["integrity"]
    files = {file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()}
    assert set(hashes) == files - {"index.html", "data/manifest.json"}
    assert all(integrity((site / path).read_bytes()) == found for path, found in hashes.items())


def test_the_page_holds_the_hashes_of_manifest_style_and_every_module(site):
    page = (site / "index.html").read_text()
    assert "{{" not in page
    assert f'data-manifest="{integrity((site / "data" / "manifest.json").read_bytes())}"' in page
    assert f'href="style.css" integrity="{integrity((site / "style.css").read_bytes())}"' in page
    (text,) = re.findall(r'<script type="importmap">(.*?)</script>', page)
    modules = json.loads(text)["integrity"]
    scripts = {f"./js/{file.name}" for file in (PAGE / "js").iterdir()}
    assert set(modules) == scripts | {"./runtime/ort.wasm.bundle.min.mjs"}
    assert f"'{integrity(text.encode(), 'sha256')}'" in page


def test_nothing_in_the_page_names_another_host():
    for file in PAGE.rglob("*.*"):
        assert not re.search(r"https?://(?!localhost)", file.read_text(encoding="utf-8")), file


def test_no_script_turns_text_into_markup():
    for file in (PAGE / "js").iterdir():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", file.read_text("utf-8")
        ), file


def test_an_older_folder_stays(tmp_path, runtime):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="exists already"):
        export_web(tmp_path, "miniguard", [BASE])
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_model_that_is_refused_leaves_nothing_behind(tmp_path, runtime, llava):
    with pytest.raises(UserError, match="is none"):
        export_web(tmp_path / "site", "miniguard", [BASE, Shown("other", "other", "", llava)])
    assert not [file for file in tmp_path.iterdir() if "site" in file.name]


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnx") else name)
    with pytest.raises(UserError, match=r"onnx and onnxscript and onnxruntime; run `pip install '.*\[web\]'`"):
        export_web(tmp_path / "site", "miniguard", [BASE])


def test_the_command_refuses_in_one_sentence(tmp_path):
    done = workbench("export-web", "--out", tmp_path / "site", "--runtime", tmp_path / "nowhere")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--runtime" in done.stderr
    assert not (tmp_path / "site").exists()
