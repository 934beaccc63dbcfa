# One command for each task in this project. `make` without arguments lists them.
#
#   PYTHON       Python interpreter for the environment (3.11 or newer)
#   VENV         folder of the environment
#   RUNS         folder of the runs
#   RESULTS      folder of tables and figures
#   PIP_ARGS     further arguments for pip, such as an index with CPU builds of torch
#   PYTEST_ARGS  arguments for pytest, such as -n 4, -k NAME or -x; the default keeps tests that share fixtures together
#   RUN          yes: `make reproduce` runs the sweeps of its plan

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
# No parallel targets: the papers write to the same tables, and one sweep uses all cores.
.NOTPARALLEL:
PAPERS := rasa brouns demeester sparselang embeddings
.PHONY: help setup quickstart $(PAPERS) $(PAPERS:=-small) reproduce reproduce-small benchmark benchmark-quick probe results claims dashboard \
	bench bench-gpu test test-cluster lint format constraints clean

# $(call train,PAPER,SIZE): download the paper's corpora, then run its sweeps in the order of its page.yaml. After each
# sweep, its results are added to the tables, even if a run failed. A stopped sweep resumes where it was.
train = $(list) corpora $(1) --size $(2) | xargs -r $(BIN)/python -m sparse_bench.data download && \
	for sweep in $$($(list) sweeps $(1) --size $(2)); do \
	$(BIN)/python -m sparse_bench sweep=$$sweep output=$(RUNS) logger=none; failed=$$?; \
	$(collect) || exit; test $$failed = 0 || exit $$failed; \
	done
list = $(BIN)/python -m sparse_bench.papers
# $(call plan,SIZE …): print the cost of the papers' sweeps, and of the part that is left.
plan = $(BIN)/python -m sparse_bench.plan --runs $(RUNS) --results $(RESULTS) $$(for size in $(1); do $(list) sweeps $(PAPERS) --size $$size; done)
# Add the results of all runs in $(RUNS) to the tables in $(RESULTS); rows of earlier runs stay.
collect = $(BIN)/python -m sparse_bench.evidence collect --results $(RESULTS) --runs $(RUNS)

help: ## list these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## create the environment in .venv and install the project (needs only Python 3.11 or newer)
	@echo "The environment in $(VENV) is ready."

# The stamp is newer than what it was installed from, so a second `make setup` has nothing to do.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing the project and its dependencies into $(VENV): three to five minutes, mostly for torch."
	@if ! test -x $(BIN)/python; then \
		command -v $(PYTHON) >/dev/null \
			|| { echo "error: '$(PYTHON)' was not found; name a Python 3.11 or newer: make setup PYTHON=…" >&2; exit 1; }; \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			|| { echo "error: $$($(PYTHON) --version) is too old; name a Python 3.11 or newer: make setup PYTHON=…" >&2; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
			|| { echo "error: $(PYTHON) has no module venv; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		$(PYTHON) -m venv $(VENV); \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(STAMP) ## run a first small sweep and draw its figures (minutes, no download)
	@echo "Training DIET at three densities on a generated corpus: 24 runs, four to twelve minutes on two cores."
	@$(BIN)/python -m sparse_bench sweep=rasa/quickstart output=$(RUNS) logger=none
	@$(BIN)/python -m sparse_bench.site $(RUNS)/report/quickstart --runs $(RUNS) --experiment rasa/quickstart \
		--metric test/intent_f1 test/entity_f1
	@echo
	@cat $(RUNS)/report/quickstart/summary.md
	@echo
	@echo "Page with figures: $(abspath $(RUNS)/report/quickstart/index.html)"
	@echo "Next: make rasa-small (a paper at reduced scale), or one run of your own (a minute):"
	@echo "  $(BIN)/python -m sparse_bench experiment=rasa/diet dataset=sara_like sparsity.density=0.1 model.transformer_size=32 trainer.epochs=20"

# ---- the papers: at their own scale, and at one that two cores can do ----

rasa: $(STAMP) ## Rasa's sparse layers: DIET on Sara and TED, every density, width and seed (234 runs)
rasa-small: $(STAMP) ## the same on generated corpora, fewer widths (no download)
brouns: $(STAMP) ## SET in the Transformer on Multi30k: nine arms, and the effects of batches and padding (84 runs)
brouns-small: $(STAMP) ## the same for the report's three arms, with a narrower model (ten minutes)
demeester: $(STAMP) ## predefined sparseness: tagging on Brown, reduced AWD-LSTMs (hours), then the paper's AWD-LSTMs (need a GPU)
demeester-small: $(STAMP) ## the same on a twentieth of the treebank, and tagging on a sample of the Wall Street Journal
sparselang: $(STAMP) ## SparseLang: both experiments, depths, and controls for the report's caveats (dense LSTMs need a GPU)
sparselang-small: $(STAMP) ## the same with 256 units: Experiment 1 with its dense baseline, and the controls
embeddings: $(STAMP) ## sparse gradients of embeddings: text types of the Brown corpus, with dense and sparse gradients
embeddings-small: $(STAMP) ## the same on a generated corpus (no download)

$(PAPERS):
	@$(call train,$@,full)

$(PAPERS:=-small):
	@$(call train,$(@:-small=),small)

reproduce: $(STAMP) ## print the cost of all sweeps at full and intermediate scale; RUN=yes runs or resumes them
	@$(call plan,full)
	@$(if $(filter yes,$(RUN)),$(MAKE) $(PAPERS) results,echo "To run or resume the sweeps: make reproduce RUN=yes")

reproduce-small: $(STAMP) ## print the cost of every paper at reduced scale, run them, and make tables, claims and pages
	@$(call plan,small)
	@$(MAKE) $(PAPERS:=-small) results

benchmark: $(STAMP) ## print the cost of the benchmark, then run or resume it: every scheme on six tasks (half a day)
	@$(BIN)/python -m sparse_bench.plan --runs $(RUNS) --results $(RESULTS) $$($(list) sweeps benchmark --size full)
	@$(call train,benchmark,full)

benchmark-quick: $(STAMP) ## the same with one seed and three densities (two hours)
	@$(BIN)/python -m sparse_bench.plan --runs $(RUNS) --results $(RESULTS) $$($(list) sweeps benchmark --size small)
	@$(call train,benchmark,small)

probe: $(STAMP) ## time a few steps of sweeps without measurements, for their plans (minutes, on an idle machine)
	@$(BIN)/python -m sparse_bench.data download sara ted brouns multi30k ptb ptb_pos brown
	@$(call plan,full small) --probe

results: $(STAMP) ## make claims and pages from the tables in results/: pages in results/site, a summary in README.md
	@echo "Making pages from the tables in $(RESULTS), without training: a minute."
	@$(BIN)/python -m sparse_bench.site $(RESULTS)/site --results $(RESULTS) --readme README.md

claims: $(STAMP) ## print which of the papers' claims are reproduced, from the tables in results/
	@$(BIN)/python -m sparse_bench.evidence claims --results $(RESULTS)

dashboard: $(STAMP) ## write the specifications of the W&B reports, one a paper (scripts/wandb_dashboard.py --publish sends them)
	@$(BIN)/python scripts/wandb_dashboard.py --output $(RUNS)/wandb_reports

# $(call measure,SCRIPT,TABLE,OPTIONS,FILE): one table, from scripts/bench_SCRIPT.py, in FILE or else under its own name.
measure = echo "scripts/bench_$(1).py $(2) $(3)"; $(BIN)/python scripts/bench_$(1).py $(2) $(3) \
	--output $(RESULTS)/performance/$(or $(4),$(2)).csv || exit

bench: $(STAMP) ## measure the performance tables in results/performance (an hour on an idle machine)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[bench]' \
		|| echo "SparseProp, a baseline of the sparse layers, cannot be built here; the table will note that."
	@echo "Timing with interleaved arms. Please do not use the machine for anything else."
	@$(BIN)/python -m sparse_bench.data download brouns
	@$(foreach table,sparse_linear block_lstm,$(call measure,layers,$(table)); )
	@$(foreach table,sparse_lstm sparsify,$(call measure,models,$(table)); )
	@$(foreach table,schemes set_epoch rewiring,$(call measure,schemes,$(table)); )
	@$(foreach table,launchers collect,$(call measure,sweeps,$(table)); )
	@$(call measure,embeddings,sparse_gradient_support)
	@$(call measure,embeddings,embeddings)
	@$(call measure,embeddings,embeddings,--vocabulary 10000 30000 100000 300000 1000000 3000000 --dim 64,embeddings_vocabulary)
	@$(call measure,embeddings,embeddings,--dim 50 100 300 --batch 1 32 256 --tokens 8 20 --seconds 5,embeddings_grid)
	@export OMP_WAIT_POLICY=passive; $(call measure,models,sparse_models); \
		$(call measure,transformer,,,transformer); $(call measure,diet,,,diet_step)

bench-gpu: $(STAMP) ## measure the tables of the sparse layers on a GPU (two minutes)
	@$(call measure,layers,sparse_linear,--device cuda --sizes 1024 2048 --tokens 1024 4096 --seconds 0.3,sparse_linear_gpu)
	@$(call measure,models,sparse_lstm,--device cuda --seconds 5,sparse_lstm_gpu)
	@$(call measure,layers,block_lstm,--device cuda --seconds 1,block_lstm_gpu)

test: $(STAMP) ## run all tests
	@echo "Running the tests: ten to fifteen minutes on two cores."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

# On the local machine: Slurm needs root and Debian's slurm-wlm and munge, and is skipped without; so is Ray.
test-cluster: $(STAMP) ## test the launchers for clusters with a local Slurm and a local Ray (five minutes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[slurm,ray,optuna]' \
		|| echo "The extras slurm, ray and optuna cannot be installed here; their tests are skipped."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 -m slow -rs tests/cluster tests/test_locks.py

lint: $(STAMP) ## check style, format and types
	@echo "Checking style, format and types: under a minute."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## correct style and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Remove local labels such as "+cpu" from versions, because a pin must fit every build. Torch itself pins the CUDA
# libraries and triton.
constraints: ## write constraints.txt from the versions installed in .venv
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
