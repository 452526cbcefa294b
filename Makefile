# The doors for people: `make help` lists them. Everything runs in the virtual environment .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV ?= .venv
JOBS ?= auto
ARGS ?=
STAMP := $(VENV)/.ready

# Bytecode on (without it every start of torch costs twice); programs of .venv (ninja, torchrun) found by name.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help environment quickstart test check format clean

help:  ## list the targets
	@grep -hE '^[a-z]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14 | sed 's/^/  make /'
	@echo "  variables:    PYTHON=$(PYTHON) (3.11 or newer)  VENV=$(VENV)  JOBS=$(JOBS) (test processes)  ARGS= (more arguments)"

environment: $(STAMP)  ## create or update the virtual environment

$(STAMP): setup.py constraints.txt .ci/environment
	@VENV="$(VENV)" PYTHON="$(PYTHON)" .ci/environment
	@touch $@

quickstart: $(STAMP)  ## toy world, training stages 0, 1 and 2, evaluation: minutes on two cores, no download
	@$(VENV)/bin/python -m minigpt4o.cli quickstart $(ARGS)

test: $(STAMP)  ## all tests: CPU, no network
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n $(JOBS) --maxprocesses 8 --dist worksteal $(ARGS)

check: $(STAMP)  ## style and types, changing nothing
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

format: $(STAMP)  ## put the style right
	@$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

clean:  ## remove build leftovers and caches (not .venv, data or output)
	@rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
