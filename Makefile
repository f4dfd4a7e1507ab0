# Two commands do all the set-up on a machine that has Python 3.11 or newer, make and a package index:
#   make demo     train on half of a real image, judge on the other half, show the report
#   make test     run the tests
# make check is what every change has to pass. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
BIN = .venv/bin
# editable, so that one environment serves all targets and never runs a stale copy of the sources
INSTALL = $(BIN)/pip install --disable-pip-version-check -c constraints.txt -e
# a process per core, at most four: most tests keep to one core each
PYTEST = $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: demo test lint check clean

demo: .venv/demo
	$(BIN)/septum demo

test: .venv/dev
	$(PYTEST)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST)

clean:
	rm -rf .venv

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[demo]"
	touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[demo,dev]"
	touch .venv/demo $@
