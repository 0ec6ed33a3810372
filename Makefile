PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) tools/setup.py
BASE := smollm2-135m-instruct
PYTEST := $(BIN)/python -m pytest -n auto

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-all lint bench bench-peers clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## create .venv with the locked versions, developer tools included
	@$(SETUP) dev

demo:  ## the whole loop on real data, minutes on a CPU
	@$(SETUP) eval
	@$(BIN)/tuneloop demo

test: install  ## the fast tests: tiny models, and one real one
	@$(BIN)/tuneloop models fetch $(BASE) || echo "NOTE: $(BASE) could not be fetched: tests marked 'real' are skipped."
	$(PYTEST) -m "not slow"

test-slow:  ## parity with other libraries, full matrices, the wheel in a clean environment
	@$(SETUP) dev,parity
	$(PYTEST) -m slow

test-all: test test-slow  ## both

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install  ## a quarter of an hour: measurements against plain transformers and PEFT
	@$(BIN)/tuneloop models fetch $(BASE)
	$(BIN)/python benchmarks/run.py

bench-peers: install  ## the other tools, installed into environments of their own (several GB), against ours
	@$(BIN)/tuneloop models fetch $(BASE)
	$(BIN)/python benchmarks/peers/install.py
	$(BIN)/python benchmarks/run.py --only peers

clean:  ## remove what these commands made; runs and the cache of bases are kept
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
