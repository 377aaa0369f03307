# The front door of Pharos. `make` alone says what there is.
#
# One installation is one virtual environment, .venv: nothing else on this machine is changed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.SILENT:
MAKEFLAGS += --no-print-directory

# Which build of torch: cpu, cuda, or auto (CUDA where an NVIDIA GPU answers).
TORCH ?= auto
# What to pass on to pytest, as in: make test-unit ARGS="-k sse"
ARGS ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
SETUP := deploy/local/setup.sh

UNIT := libs services deploy/local
SOURCES := $(wildcard libs/*/src services/*/src deploy/local/src)

.PHONY: help setup run test test-unit test-integration test-e2e test-faults chaos faults bench bench-gpu bench-index bench-queue bench-edges bench-scale check store demo fmt lint types docs verify clean dev

help: ## Say what there is
	printf 'Pharos. Begin with `make run`; in another terminal, `make demo`.\n\n'
	awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	printf '\n  TORCH=cpu|cuda chooses the build of torch (now: %s). ARGS="-k word" goes to pytest.\n' '$(TORCH)'

setup: ## Install everything that Pharos needs to run into .venv
	TORCH='$(TORCH)' $(SETUP) run

run: setup ## Run Pharos on this machine until Ctrl-C
	exec $(PYTHON) -m pharos_local

demo: setup ## With `make run` in another terminal: index code of Pharos and search it
	exec $(PYTHON) -m examples.demo

dev: setup
	TORCH='$(TORCH)' $(SETUP) dev

test: lint types verify test-unit test-integration test-e2e test-faults ## Everything that must pass

test-unit: dev ## Tests of each package by itself
	$(PYTHON) -m pytest -n 2 -m 'not gpu and not chaos' $(UNIT) tests/architecture $(ARGS)

test-integration: dev ## Tests against a real bus, real stores, real SQL; and of what is deployed
	$(PYTHON) -m pytest -n 3 -m 'not chaos' tests/integration tests/conformance tests/deploy $(ARGS)

test-e2e: dev ## HTTP in, search result out, over the whole stack
	$(PYTHON) -m pytest -n 2 tests/e2e -m 'not chaos' $(ARGS)

test-faults: dev ## The most telling faults, and random lives of jobs
	$(PYTHON) -m pytest -n 2 --dist loadfile tests/faults tests/stateful -m 'not chaos' $(ARGS)

faults: dev ## Every fault, in every part, at every moment; writes docs/reliability.md
	$(PYTHON) -m tests.faults $(ARGS)

chaos: dev ## Kill parts at random, and try the whole API, for minutes; nothing may be lost
	$(PYTHON) -m pytest tests $(UNIT) -m chaos --timeout 1800 $(ARGS)

bench: dev ## Measure
	$(PYTHON) -m bench $(ARGS)

bench-index: dev ## Measure the index engine on real repositories, which it fetches from their registries
	$(PYTHON) -m bench.bench_index $(ARGS)

bench-gpu: dev ## Measure the encoder on this machine's GPU
	$(PYTHON) -m bench.bench_gpu $(ARGS)

bench-queue: dev ## Measure the queue against the disk, a bare bus, RQ and Celery
	$(PYTHON) -m bench.bench_queue $(ARGS)

bench-edges: dev ## Compare the imports of larger projects with what the tools of their languages say
	$(PYTHON) -m bench.bench_edges $(ARGS)

bench-scale: dev ## Measure the Linux source and 10,000 files: time and memory
	$(PYTHON) -m bench.bench_scale $(ARGS)

check: setup ## With `make run` in another terminal: does all that Pharos keeps agree?
	exec $(PYTHON) -m pharos_local.bus_command check $(ARGS)

store: setup ## With `make run` in another terminal: ARGS="stats", "check", "snapshot FILE", "restore FILE", "migrate --to URL"
	exec $(PYTHON) -m pharos_local.bus_command --store $(ARGS)

fmt: dev ## Format the code
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint: dev ## Check format and style
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types: dev ## Check types
	$(PYTHON) -m mypy $(SOURCES)

docs: dev ## Write the pages that are made from the code
	$(PYTHON) -m docs.generate

verify: dev ## Fail where those pages are stale
	$(PYTHON) -m docs.generate --check

clean: ## Remove caches and .venv; PHAROS_HOME stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
