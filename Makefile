# Everything sets itself up: a virtual environment in .venv with the versions of requirements.txt.
# Nothing has to be installed beforehand but make and Python 3.11 or newer.

SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.installed
# The first Python that is new enough and can make virtual environments; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 /usr/bin/python3; do \
	"$$p" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

.PHONY: help setup demo test test-jobs test-cluster storm slow lint format clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(STAMP)  ## make .venv and install what requirements.txt names

$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv found: on Debian, apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv
	$(BIN)/python -m uv pip install -q --compile-bytecode -p $(BIN)/python -r requirements.txt || $(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)   ## generate a data set, train three heads on two Ray workers, measure, export, check, serve (three to six minutes on 2 cores)
	$(BIN)/python -m jobs.pipeline configs/pipelines/demo.yaml

test: $(STAMP)   ## the tests but the slow ones, those of whole jobs and those of clusters (at most 15 minutes on 2 cores)
	$(BIN)/python -m pytest -q -m "not slow and not jobs and not cluster" -n 2 --dist loadfile --no-loadscope-reorder --durations=12

test-jobs: $(STAMP) ## whole jobs on a Ray of their own: the commands of the README and docs, kills, job submission, searches
	$(BIN)/python -m pytest -q -m "jobs and not slow" -n 2 --dist loadfile --no-loadscope-reorder --durations=12

test-cluster: $(STAMP) ## several hosts in network namespaces, some of them dying (root and iproute2; skipped with a reason elsewhere)
	$(BIN)/python -m pytest -q -m cluster tests/cluster tests/clusters

storm: $(STAMP)  ## 10,000 malformed, slow, oversized and interrupted requests against a running server (about five minutes)
	$(BIN)/python -m tests.serving.storm

slow: $(STAMP)   ## the slow tests: whole pipelines, which demo runs too
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)   ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove what demo and the tools leave; the virtual environment stays
	rm -rf runs data out wandb build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
