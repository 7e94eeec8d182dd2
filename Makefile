# make demo: the study on MiniGuard. make test: everything that CI checks. make lab: the notebooks.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lab notebooks clean

demo: $(READY)
	$(BIN)/workbench demo --out demo

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 900 --nbval-sanitize-with notebooks/sanitize.cfg notebooks

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir notebooks

# run every notebook from top to bottom and save it with its outputs (nbval knows no trailing ;, so cells assign their figures)
notebooks: $(READY)
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --inplace --execute notebooks/[0-9]*.ipynb

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/python -c 'import matplotlib.pyplot' # builds the font cache now, not inside a notebook
	@touch $(READY)

clean:
	rm -rf .venv demo runs seeds
