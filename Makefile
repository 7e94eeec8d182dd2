# make demo: the study on MiniGuard. make test: checks, tests and notebooks. make test-fast: unit tests, for daily work.
# make test-slow: tests that take minutes. make kills: every resumable command, killed.
# make fuzz: random inputs. make audit-dependencies: known vulnerabilities. make test-lowest: with the lowest
# versions. make tables: the shipped study; tables-check: parts of it again; release-check: is it up to date?
# make test-browser: the widgets in Chromium. make lab: the notebooks.
PYTHON ?= python3
LOWEST_PYTHON ?= $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null || echo $(PYTHON))
BIN := .venv/bin
READY := .venv/.ready
BROWSER := .venv/.browser
FAST := tests/attacks tests/data tests/judges tests/plots tests/docs/test_pages.py tests/docs/test_results.py $(wildcard tests/test_*.py)
RUNS := WORKBENCH_RUNS=$(CURDIR)/build/runs
ONE_THREAD := OMP_NUM_THREADS=1 $(RUNS)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

.PHONY: demo check test test-fast test-slow fuzz audit-dependencies kills test-lowest tables tables-check release-check test-browser lab notebooks clean

demo: $(READY)
	$(BIN)/workbench demo --out demo

# formatting, style, the floors of the package, types
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/basedpyright --level error

# what notebooks train, tests find again (notebooks/conftest.py says in which order); make check is one of the tests
test: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40 -m 'not long' \
		--nbval --nbval-current-env --nbval-cell-timeout 1800 --nbval-sanitize-with notebooks/sanitize.cfg notebooks tests

# the chapters whose tests need no training
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q -m 'not long and not slow' $(FAST)

# what takes minutes: whole studies killed, all methods trained, several processes, and memory plans of large models
test-slow: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile --durations 10 -m long

# thousands of random inputs, each right or one sentence; a few of each kind are in make test
fuzz: $(READY)
	OMP_NUM_THREADS=1 WORKBENCH_FUZZ=fuzz $(BIN)/python -m pytest -q tests/fuzz

# known vulnerabilities of what is installed; it asks a database on the network, and is no test
audit-dependencies: $(READY)
	-$(BIN)/pip-audit --progress-spinner off --skip-editable

# every command that can be resumed, killed twenty times at random moments
kills: $(READY)
	$(ONE_THREAD) WORKBENCH_KILLS=20 $(BIN)/python -m pytest -n 2 --durations 10 tests/test_kills.py

# the quick tests and the demo with the lowest versions that pyproject.toml admits, on Python 3.12 where it is installed
# (torch brings 3 GB of CUDA libraries; transformers 5.17 wants torchvision for the pictures of some models)
test-lowest: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv venv --clear --python $(LOWEST_PYTHON) .lowest
	$(BIN)/uv pip install --python .lowest --resolution lowest-direct -e '.[test]' 'torchvision>=0.26'
	OMP_NUM_THREADS=1 .lowest/bin/python -m pytest -n 2 --dist loadfile -m 'not slow' --deselect tests/test_packaging.py::test_what_runs_here_is_what_is_pinned
	WORKBENCH_RUNS=.lowest/runs .lowest/bin/workbench demo --out .lowest/demo

# make the shipped study's out-of-date rows anew, which can take hours and resumes, and fill the tables in the pages
tables: $(READY)
	$(ONE_THREAD) $(BIN)/workbench tables --make
	$(BIN)/python docs/tables.py

# make some of the shipped study anew, drawn by the commit's hash, and compare
tables-check: $(READY)
	$(ONE_THREAD) $(BIN)/workbench tables --check 2
	$(BIN)/python docs/tables.py --check

# nothing shipped is out of date
release-check: $(READY)
	$(BIN)/workbench tables
	$(BIN)/python docs/tables.py --check

# with the models that make test has trained; screenshots are written to build/screenshots
test-browser: $(BROWSER)
	$(RUNS) $(BIN)/python -m pytest tests/browser

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir notebooks

# run every notebook from top to bottom and save it with its outputs (nbval knows no trailing ;, so cells assign their figures)
notebooks: $(READY)
	$(ONE_THREAD) TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --inplace --execute notebooks/[0-9]*.ipynb
	$(BIN)/python notebooks/stand_ins.py notebooks/[0-9]*.ipynb

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
	rm -rf .venv .lowest build demo runs seeds
