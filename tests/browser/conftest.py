"""A real JupyterLab, a real Chromium, and a page of it that must log no error and ask no other machine for
anything.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

expect.set_options(timeout=60_000)  # models answer at their own speed; the default is 5 seconds
ROOT = Path(__file__).parents[2]
OWN = """
import workbench as wb

models = {"base": wb.load("miniguard"), "<b>bold</b>": wb.load("miniguard")}
examples = wb.miniguard_split("validation", sizes=(8, 8))
first, second = (wb.LiveProbe(models, examples) for _ in range(2))
explorer = wb.AttributionExplorer(models, examples)
"""


@contextlib.contextmanager
def served(folder, *command, path):
    """Run a Jupyter server in a folder, with settings of its own.

    Yields its address with `path` once it answers.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        name: str(folder / ".jupyter")
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    }
    log = (folder / f"{command[0]}.log").open("w")
    start = [sys.executable, "-m", *command, "--no-browser", f"--port={port}"]
    process = subprocess.Popen(start, cwd=folder, env=os.environ | own | {"TQDM_DISABLE": "1"}, stdout=log, stderr=log)
    try:
        for _ in range(300):
            assert process.poll() is None, Path(log.name).read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60)
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Notebook 06, and one of one's own: two probes and an explorer of models with an odd name."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / "06_ask_it_yourself.ipynb", folder)
    cells = [nbformat.v4.new_code_cell(source) for source in (OWN, "first", "second", "explorer")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "own.ipynb")
    settings = folder / ".jupyter" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return folder


@pytest.fixture(scope="session")
def lab(folder):
    """A notebook's address by its name, each in a workspace of its own."""
    token = secrets.token_hex(8)
    options = [f"--IdentityProvider.token={token}", "--allow-root"]
    with served(folder, "jupyterlab", *options, path="/api") as address:
        yield lambda name: f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?token={token}"


@pytest.fixture(scope="session")
def chromium():
    installed = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )  # else Playwright's own
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(chromium):
    """Tall, so that a notebook's cells are all drawn."""
    context = chromium.new_context(viewport={"width": 1280, "height": 3000}, accept_downloads=True)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    inside = ("http://127.0.0.1:", "data:", "blob:")
    page.on(
        "request", lambda request: None if request.url.startswith(inside) else wrong.append(f"outside: {request.url}")
    )
    page.set_default_timeout(30_000)
    yield page
    context.close()
    assert wrong == []
