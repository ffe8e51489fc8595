# Everything runs in a virtual environment of the project's own; every target sets it up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test test-all bench lint clean

demo: $(READY)  ## the main job on real input: a table, and demo/overview.png
	$(BIN)/python -m gradbias.experiments.demo demo

test: $(READY)  ## the suite that every change must pass
	$(BIN)/pytest -n 2 -m "not slow"

test-all: $(READY)  ## with the slow tests
	$(BIN)/pytest -n 2

bench: $(READY)  ## ratios against the naive way, measured in the same run
	$(BIN)/python -m benchmarks.run

lint: $(READY)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo out build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
