# Everything that one does with the project, as one command each. `make` alone lists them.
#
#   PYTHON       the interpreter that the environment is made with (3.11 or newer)
#   VENV         where the environment is
#   RUNS         where run folders go
#   RESULTS      where tables and figures go
#   PIP_ARGS     more for pip, such as an index with CPU builds of torch
#   PYTEST_ARGS  more for pytest, such as -n 4, -k NAME or -x; neighbours share what they set up, so they stay together
#   RUN          yes: `make reproduce` carries its plan out

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
RESULTS ?= results
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2 --dist worksteal

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The papers write to the same tables, and a sweep uses all cores by itself.
.NOTPARALLEL:
PAPERS := rasa brouns demeester sparselang embeddings
.PHONY: help setup quickstart $(PAPERS) $(PAPERS:=-small) reproduce reproduce-small probe results claims dashboard \
	bench bench-gpu test lint format constraints clean

# $(call train,PAPER,SIZE): its corpora, then its sweeps one after another, as the paper's page.yaml lists them. The tables
# have the results of each, also of one in which a run failed, before the next begins. A sweep can be stopped at any time
# and goes on where it was.
train = $(list) corpora $(1) --size $(2) | xargs -r $(BIN)/python -m sparse_bench.data download && \
	for sweep in $$($(list) sweeps $(1) --size $(2)); do \
	$(BIN)/python -m sparse_bench sweep=$$sweep output=$(RUNS) logger=none; failed=$$?; \
	$(collect) || exit; test $$failed = 0 || exit $$failed; \
	done
list = $(BIN)/python -m sparse_bench.papers
# $(call plan,SIZE …): what the papers' sweeps cost, and what of them is left.
plan = $(BIN)/python -m sparse_bench.plan --runs $(RUNS) --results $(RESULTS) $$(for size in $(1); do $(list) sweeps $(PAPERS) --size $$size; done)
# What the runs below $(RUNS) have measured goes into the tables of $(RESULTS); rows of earlier runs stay.
collect = $(BIN)/python -m sparse_bench.evidence collect --results $(RESULTS) --runs $(RUNS)

help: ## list these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make the environment in .venv and install the project (needs Python 3.11 or newer, nothing else)
	@echo "The environment in $(VENV) is ready."

# The stamp is newer than what it was installed from, so a second `make setup` has nothing to do.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing the project and its dependencies into $(VENV): about three minutes, most for torch."
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
	@$(BIN)/python -m sparse_bench.site $(RUNS)/report/quickstart --runs $(RUNS) --experiment rasa/quickstart \
		--metric test/intent_f1 test/entity_f1
	@echo
	@cat $(RUNS)/report/quickstart/summary.md
	@echo
	@echo "Page with figures: $(abspath $(RUNS)/report/quickstart/index.html)"
	@echo "Next: make rasa-small (a paper at reduced scale), or one run of your own:"
	@echo "  $(BIN)/python -m sparse_bench experiment=rasa/diet dataset=sara_like sparsity.density=0.1"

# ---- the papers: at their own scale, and at one that two cores can do ----

rasa: $(STAMP) ## Rasa's sparse layers: DIET on Sara and TED, every density, width and seed (234 runs)
rasa-small: $(STAMP) ## the same on generated corpora, fewer widths (no download)
brouns: $(STAMP) ## SET in the Transformer on Multi30k: nine arms, and what batches and padding do (84 runs)
brouns-small: $(STAMP) ## the report's three arms with a narrower model (ten minutes)
demeester: $(STAMP) ## predefined sparseness: tagging on Brown, reduced AWD-LSTMs (hours), then the paper's (a GPU)
demeester-small: $(STAMP) ## the same with a twentieth of the treebank, and tagging on the sample of the Wall Street Journal
sparselang: $(STAMP) ## SparseLang: both experiments, depths, and controls for the report's caveats (paper scale; its dense LSTMs need a GPU)
sparselang-small: $(STAMP) ## Experiment 1, with its dense baseline, and the controls, with 256 units
embeddings: $(STAMP) ## sparse gradients of embeddings: typing texts of the Brown corpus, dense and sparse
embeddings-small: $(STAMP) ## the same on a generated corpus (no download)

$(PAPERS):
	@$(call train,$@,full)

$(PAPERS:=-small):
	@$(call train,$(@:-small=),small)

reproduce: $(STAMP) ## the plan of all sweeps, at the papers' scales and between, with the cost; RUN=yes carries it out, resumable
	@$(call plan,full)
	@$(if $(filter yes,$(RUN)),$(MAKE) $(PAPERS) results,echo "To carry it out, or go on with it: make reproduce RUN=yes")

reproduce-small: $(STAMP) ## every paper at reduced scale, after a look at the cost; then tables, claims and pages
	@$(call plan,small)
	@$(MAKE) $(PAPERS:=-small) results

probe: $(STAMP) ## time a few steps of sweeps that nothing is known of, for the plans (minutes, on a quiet machine)
	@$(BIN)/python -m sparse_bench.data download sara ted brouns multi30k ptb ptb_pos brown
	@$(call plan,full small) --probe

results: $(STAMP) ## tables, claims and pages from results/; pages go to results/site, the gist into README.md
	@echo "Making pages from the tables in $(RESULTS): a minute. Nothing is trained."
	@$(BIN)/python -m sparse_bench.site $(RESULTS)/site --results $(RESULTS) --readme README.md

claims: $(STAMP) ## what of the papers' claims reproduces, from the tables in results/
	@$(BIN)/python -m sparse_bench.evidence claims --results $(RESULTS)

dashboard: $(STAMP) ## the specification of the W&B dashboard, as a file (scripts/wandb_dashboard.py --publish sends it)
	@$(BIN)/python scripts/wandb_dashboard.py --output $(RUNS)/wandb_dashboard.json

bench: $(STAMP) ## the performance tables in results/performance (an hour on a quiet machine)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[bench]' \
		|| echo "SparseProp, which the sparse layers are compared with, cannot be built here: the table will say so."
	@echo "Timing, arms interleaved. Leave the machine alone meanwhile."
	@mkdir -p $(RESULTS)/performance
	@$(BIN)/python -m sparse_bench.data download brouns
	@for script in sparse_linear sparse_lstm set_epoch block_lstm rewiring embeddings launchers; do \
		echo "scripts/bench_$$script.py"; \
		$(BIN)/python scripts/bench_$$script.py --output $(RESULTS)/performance/$$script.md || exit; \
	done
	@export OMP_WAIT_POLICY=passive; for script in sparse_models transformer; do \
		echo "scripts/bench_$$script.py"; \
		$(BIN)/python scripts/bench_$$script.py --output $(RESULTS)/performance/$$script.md || exit; \
	done; \
	$(BIN)/python scripts/profile_diet.py --threads 1 2 --output $(RESULTS)/performance/diet_step.md
	@echo "scripts/bench_embeddings.py, from ten thousand words to three million"
	@$(BIN)/python scripts/bench_embeddings.py --vocabulary 10000 30000 100000 300000 1000000 3000000 --dim 64 \
		--output $(RESULTS)/performance/embeddings_vocabulary.md
	@echo "scripts/bench_embeddings.py, over dimensions, batches and lengths"
	@$(BIN)/python scripts/bench_embeddings.py --dim 50 100 300 --batch 1 32 256 --tokens 8 20 --seconds 5 \
		--output $(RESULTS)/performance/embeddings_grid.md
	@$(BIN)/python scripts/sparse_gradient_support.py --output $(RESULTS)/performance/sparse_gradient_support.md

bench-gpu: $(STAMP) ## the tables of the sparse layers on a GPU (two minutes)
	@$(BIN)/python scripts/bench_sparse_linear.py --device cuda --sizes 1024 2048 --tokens 1024 4096 --seconds 0.3 \
		--output $(RESULTS)/performance/sparse_linear_gpu.md
	@$(BIN)/python scripts/bench_sparse_lstm.py --device cuda --seconds 5 --output $(RESULTS)/performance/sparse_lstm_gpu.md
	@$(BIN)/python scripts/bench_block_lstm.py --device cuda --seconds 1 --output $(RESULTS)/performance/block_lstm_gpu.md

test: $(STAMP) ## all tests
	@echo "Running the tests: about ten minutes on two cores."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## style, format and types
	@echo "Checking style, format and types: under a minute."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## put style and format right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# A local label of an installed version ("+cpu") names one build of it; the pin has to fit every build. Torch's own pins
# fix the CUDA libraries and triton.
constraints: ## write constraints.txt anew from what is installed in .venv
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target "$$tools" uv && \
	$(BIN)/python -m pip list --format freeze --exclude-editable | sed -E '/^(nvidia|cuda|triton)/d; s/[+].*//' > "$$tools/installed" && \
	{ echo '# Exact versions of what the project and its `dev` extra need. Written by `make constraints`.' && \
	"$$tools/bin/uv" pip compile pyproject.toml --extra dev --python $(BIN)/python --constraints "$$tools/installed" \
		--quiet --no-annotate --no-header | grep -vE '^(nvidia|cuda|triton)'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch $(STAMP)

clean: ## remove caches and build products; runs, results and .venv stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
