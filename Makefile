# Everything that one does with the project, as one command each. `make` alone lists them.
#
#   PYTHON       the interpreter that the environment is made with (3.11 or newer)
#   VENV         where the environment is
#   RUNS         where run folders go
#   RESULTS      where tables and figures go
#   PIP_ARGS     more for pip, such as an index with CPU builds of torch
#   PYTEST_ARGS  more for pytest, such as -n 4, -k NAME or -x

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
RESULTS ?= results
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2

BIN := $(VENV)/bin
# The post's two figures.
DIET_METRICS := --metric test/intent_f1 test/entity_f1
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart rasa rasa-small results test lint format constraints clean

help: ## list these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make the environment in .venv and install the project (needs Python 3.11 or newer, nothing else)
	@echo "The environment in $(VENV) is ready."

# The stamp is newer than what it was installed from, so a second `make setup` has nothing to do.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing the project and its dependencies into $(VENV): about five minutes, most for torch."
	@if ! test -x $(BIN)/python; then \
		command -v $(PYTHON) >/dev/null \
			|| { echo "error: '$(PYTHON)' is not there; name a Python 3.11 or newer: make setup PYTHON=…" >&2; exit 1; }; \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			|| { echo "error: $$($(PYTHON) --version) is too old; name a Python 3.11 or newer: make setup PYTHON=…" >&2; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
			|| { echo "error: $(PYTHON) lacks the module venv; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		$(PYTHON) -m venv $(VENV); \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(STAMP) ## a first small sweep with its figures (minutes, no download)
	@echo "Training DIET at three densities on a corpus that the project makes itself: 24 runs, about four minutes on two cores."
	@$(BIN)/python -m sparse_bench sweep=rasa/quickstart output=$(RUNS) logger=none
	@$(BIN)/python -m sparse_bench.report $(RUNS)/report/quickstart --runs $(RUNS) --experiment rasa/quickstart $(DIET_METRICS)
	@echo
	@cat $(RUNS)/report/quickstart/summary.md
	@echo
	@echo "Page with figures: $(abspath $(RUNS)/report/quickstart/index.html)"
	@echo "Next: make rasa-small (reduced scale), or one run of your own:"
	@echo "  $(BIN)/python -m sparse_bench experiment=rasa/diet dataset=sara_like sparsity.density=0.1"

rasa-small: $(STAMP) ## the DIET figures at reduced scale (about an hour, no download)
	@echo "Training DIET on the generated corpus: 33 runs, about an hour on two cores. It can be stopped at any time."
	@$(BIN)/python -m sparse_bench sweep=rasa/diet_small output=$(RUNS) logger=none
	@$(BIN)/python -m sparse_bench.report $(RUNS)/report/diet_small --runs $(RUNS) --experiment rasa/diet_small $(DIET_METRICS)

rasa: $(STAMP) ## the DIET figures as published: every density, width and seed (downloads Sara; a day)
	@echo "Training DIET on Sara: 90 runs of 200 epochs, about a day on two cores."
	@echo "It can be stopped at any time; the same command goes on where it was."
	@$(BIN)/python -m sparse_bench.data download sara
	@$(BIN)/python -m sparse_bench sweep=rasa/diet_density output=$(RUNS) logger=none
	@$(MAKE) --no-print-directory results

results: $(STAMP) ## tables, figures and pages in results/ from the runs that are on disk
	@echo "Collecting the finished runs below $(RUNS) into $(RESULTS)/rasa: seconds. Nothing is trained."
	@$(BIN)/python -m sparse_bench.report $(RESULTS)/rasa --runs $(RUNS) --experiment rasa/diet $(DIET_METRICS)

test: $(STAMP) ## all tests
	@echo "Running the tests: a few minutes on two cores."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## style, format and types
	@echo "Checking style, format and types: under a minute."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## put style and format right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

constraints: ## write constraints.txt anew from what is installed in .venv
	@$(BIN)/python scripts/constraints.py > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch $(STAMP)

clean: ## remove caches and build products; runs, results and .venv stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
