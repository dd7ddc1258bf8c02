# What one does in this repository, each as one target. `make` lists them.
#
#   make PYTHON=python3.12 install     another Python (3.10 or newer)
#   make JOBS=4 test                   more tests at once
#
# constraints.txt pins everything that goes into .venv, torch too: on Linux torch from the package index is the CUDA
# build of several GB, and a CPU build of the same version that pip already knows (a wheel folder, pip's
# `find-links`) is taken instead.

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# Newer than pyproject.toml and constraints.txt when .venv holds what they ask for.
STAMP := $(VENV)/.installed
LOCK := .venv-lock
BENCH := .venv-bench

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install train test test-all check bench format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## make .venv with rlrun and its tools (other targets do this first)
	@echo "$(VENV) is ready"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "rlrun needs Python 3.10 or newer, and '$(PYTHON)' is not: name one with 'make PYTHON=python3.12 ...'." >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' comes without venv: install it (on Debian and Ubuntu: python3-venv)." >&2; \
		exit 1; }
	@echo "installing rlrun into $(VENV) (some minutes the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@

train: $(STAMP) ## train PPO on CartPole-v1, evaluate it and show the run
	@$(BIN)/rlrun train --config CartPole-v1/ppo
	@$(BIN)/rlrun show latest

test: $(STAMP) ## run the tests, but not the slow ones
	@$(BIN)/python -m pytest -q -m "not slow" -n $(JOBS)

test-all: $(STAMP) ## run all tests
	@$(BIN)/python -m pytest -q -n $(JOBS)

check: $(STAMP) ## check format, lint, types, layers and the shipped configs
	@$(BIN)/ruff format --check --quiet . || { echo "The files above are not formatted: run 'make format'." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@layers=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$layers" >&2; exit 1; }
	@$(BIN)/rlrun check --all

bench: $(STAMP) ## time rlrun against RL Zoo, in turn; an hour on an idle machine
	@test -x $(BENCH)/bin/rl_zoo3 && $(BENCH)/bin/python -c 'import cv2' 2>/dev/null || { $(PYTHON) -m venv --clear $(BENCH) && PIP_CONSTRAINT=constraints.txt \
		$(BENCH)/bin/python -m pip install -qq --disable-pip-version-check 'rl_zoo3==2.9.2' 'gymnasium[box2d]' seaborn panda-gym ale-py opencv-python-headless; }
	@$(BIN)/python benchmarks/peers.py --peer $(BENCH)/bin/python --pairs 5 --write

format: $(STAMP) ## format the code and repair what lint can repair
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

lock: ## resolve constraints.txt anew from pyproject.toml
	@$(PYTHON) -m venv --clear $(LOCK)
	@$(LOCK)/bin/python -m pip install -qq --disable-pip-version-check uv
	@$(LOCK)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --extra dev \
		--no-header --no-annotate --output-file $(LOCK)/pins.txt pyproject.toml
	@{ grep '^#' constraints.txt; cat $(LOCK)/pins.txt; } > $(LOCK)/constraints.txt
	@mv $(LOCK)/constraints.txt constraints.txt
	@rm -rf $(LOCK)
	@git --no-pager diff --stat -- constraints.txt

clean: ## remove .venv, caches and builds (runs/ stays)
	@rm -rf $(VENV) $(LOCK) $(BENCH) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
