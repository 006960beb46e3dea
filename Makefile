# Everything below sets itself up: a virtual environment in .venv, the package with what the target needs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# Compiling, which is what the tests wait for, uses one core. A file stays together: its tests share compiled parts.
WORKERS := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all lint docs clean

demo: $(VENV)/.installed
	$(RUN)/jmbrl train pets --env gymnax:Pendulum-v1 --steps 2000 --seed 0 --out runs/demo --fresh

test: $(VENV)/.installed-dev
	$(RUN)/python -m pytest -m "not slow" $(WORKERS)

test-all: $(VENV)/.installed-dev
	AS_USERS=1 $(RUN)/python -m pytest $(WORKERS)

lint: $(VENV)/.installed-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright --pythonpath $(RUN)/python

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "jmbrl needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(RUN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(RUN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

# Strict: a broken link, a page that no other lists or a docstring that does not parse is an error.
docs: $(VENV)/.installed-dev
	$(RUN)/python -m sphinx -q -W --keep-going -b html docs build/site

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache .hypothesis
