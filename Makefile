# Two commands set everything up on a machine that has Python 3.11 or newer, make and a package index:
#   make demo     train on half of a real image, score the other half, write the report
#   make test     run the tests, except the slow ones
#
#   make slow     run the slow tests
#   make docs     build the documentation into site/
#   make wheel    build the wheel and the sdist, and check the installed wheel
#   make check    everything that a change has to pass: format, lint, types, layers, docs, wheel, all tests, coverage
#
# With another Python: make demo PYTHON=python3.12

# tests start many processes, which would otherwise compile every module anew
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN = .venv/bin
# editable: one environment serves all targets and never runs a stale copy of the sources
INSTALL = $(BIN)/pip install --disable-pip-version-check -c constraints.txt -e
# one process per core, at most four: most tests use a single core
PYTEST = $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: demo test slow lint docs wheel check clean

demo: .venv/demo
	$(BIN)/septum demo

test: .venv/dev
	$(PYTEST) -m "not slow"

slow: .venv/dev
	$(PYTEST) -m slow

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: .venv/dev
	$(BIN)/python tools/check_wheel.py

check: lint docs wheel
	$(PYTEST) --cov

clean:
	rm -rf .venv site

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[demo]"
	touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[demo,dev,docs]"
	touch .venv/demo $@
