# make demo: the study on MiniGuard. make test: tests and notebooks. make test-browser: the widgets in Chromium. make lab: the notebooks.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BROWSER := .venv/.browser
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

.PHONY: demo test test-browser lab notebooks clean

demo: $(READY)
	$(BIN)/workbench demo --out demo

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 900 --nbval-sanitize-with notebooks/sanitize.cfg notebooks

# screenshots are written to build/screenshots
test-browser: $(BROWSER)
	$(BIN)/python -m pytest tests/browser

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir notebooks

# run every notebook from top to bottom and save it with its outputs (nbval knows no trailing ;, so cells assign their figures)
notebooks: $(READY)
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --inplace --execute notebooks/[0-9]*.ipynb

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[test]'
	$(BIN)/python -c 'import matplotlib.pyplot' # builds the font cache now, not inside a notebook
	@touch $(READY)

# with a Chromium that is there, else Playwright's own, else Debian's
$(BROWSER): $(READY)
	$(INSTALL) '.[browser]'
	command -v chromium chromium-browser google-chrome || $(BIN)/playwright install chromium || \
		{ apt-get update && apt-get install --yes --no-install-recommends chromium; }
	@touch $(BROWSER)

clean:
	rm -rf .venv build demo runs seeds
