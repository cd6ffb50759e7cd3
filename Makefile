# Every command makes .venv on first use; it needs only make and Python 3.11 or newer.
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

# Tests run one thread each, so that workers do not fight for cores, and open no connection.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLBACKEND=Agg WANDB_MODE=offline HF_HUB_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-statistics lint format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with the pinned packages and this project

demo: $(INSTALLED) ## Train, evaluate and report on the embedded data (at most 6 minutes on 2 cores)
	$(BIN)/python train.py experiment=demo

test: $(INSTALLED) ## Run the test suite
	$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) -q -m "not statistics" $(PYTEST_ARGS)

test-statistics: $(INSTALLED) ## Run the long simulations (hours)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) -q -m statistics $(PYTEST_ARGS)

lint: $(INSTALLED) ## Check style, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dpmed train.py $(wildcard benchmarks/*.py)
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(BIN)/python ## Pin what pyproject.toml asks for; start from scratch with: make clean lock
	$(BIN)/python -m pip install hatchling editables
	$(BIN)/python -m pip install --no-build-isolation --editable ".[dev]"
	@echo "# Written by 'make lock' from pyproject.toml; do not edit." > $(VENV)/requirements.lock
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --exclude dpmed \
	  | sed -E '/^[#-]/d; s/^((cuda|nvidia|triton)[^ ]*)$$/\1 ; sys_platform == "linux"/' \
	  >> $(VENV)/requirements.lock
	@! grep -n ' @ ' $(VENV)/requirements.lock || { echo "a package has no version to pin"; exit 1; }
	mv $(VENV)/requirements.lock requirements.lock

clean: ## Remove .venv and the caches; runs in outputs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dpmed needs Python 3.11 or newer; choose one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the pinned packages into $(VENV): once, several minutes, 3 GB on Linux"
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-build-isolation --no-deps --editable .
	@touch $@
