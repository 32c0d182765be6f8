# The two commands of the README are `make demo` and `make test`; both set the machine up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?= ../shared/data
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint bench train clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@mkdir -p out
	@rm -f out/demo.db out/demo.db-wal out/demo.db-shm
	@$(BIN)/valuedrift watch examples/two_weeks.jsonl --db sqlite:///out/demo.db --plot out/demo.png

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python benchmarks/watch.py
	$(BIN)/python benchmarks/classify.py

train: setup
	@mkdir -p out
	$(BIN)/python examples/labelled.py > out/labelled.jsonl
	$(BIN)/valuedrift train --data $(DATA)/train --factors $(DATA)/factors --check out/labelled.jsonl

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
