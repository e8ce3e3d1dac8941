# `make compare` and `make test` set up all they need; a stamp in .venv makes the second call fast.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: compare test check clean

compare: .venv/installed
	$(BIN)/maldrop compare $(ARGS)

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto $(ARGS)

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ .venv/installed

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ .venv/installed .venv/installed-test
