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

quickstart: $(STAMP) ## a first small sweep with its figures
	@echo "Training DIET at a few densities on a small corpus that the project makes itself: minutes on two cores."
	$(BIN)/python -m sparse_bench sweep=rasa/quickstart output=$(RUNS)
	$(BIN)/python -m sparse_bench.report $(RUNS)/report/quickstart --runs $(RUNS) --experiment rasa/quickstart

rasa-small: $(STAMP) ## the DIET experiments with fewer densities, seeds and epochs
	@echo "Training DIET, sparse and small dense, with few densities and seeds: about an hour on two cores."
	$(BIN)/python -m sparse_bench sweep=rasa/small output=$(RUNS)
	@$(MAKE) --no-print-directory results

rasa: $(STAMP) ## the DIET experiments as published: every density, every seed
	@echo "Training DIET, sparse and small dense, at every density with every seed: hours to days."
	@echo "It can be stopped at any time; the same command goes on where it was."
	$(BIN)/python -m sparse_bench sweep=rasa/diet_density output=$(RUNS)
	@$(MAKE) --no-print-directory results

results: $(STAMP) ## tables, figures and a page from the runs that are on disk
	@echo "Collecting the finished runs below $(RUNS) into $(RESULTS)/rasa: seconds. Nothing is trained."
	$(BIN)/python -m sparse_bench.report $(RESULTS)/rasa --runs $(RUNS) --experiment rasa

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
