# Everything a user or CI types. The environment is .venv; PYTHON picks the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
TEST := $(BIN)/python -m pytest --numprocesses 2

OLDEST = $(shell sed -n 's/.*"transformers>=\([0-9.]*\)".*/\1/p' pyproject.toml)

.PHONY: help search install test test-all test-oldest lint dashboard study gpu-study gpu-wheels clean

help:  ## what there is to type
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

install: .venv/installed  ## make .venv with the pinned dependencies

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,postgresql,speech]'
	touch $@

.venv/installed-engines: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,postgresql,speech,ctranslate2,onnxruntime]'
	touch $@

.venv/installed-serving: .venv/installed $(wildcard tests/serving/*.txt) tests/serving/package.json
	for tool in ctranslate2 optimum; do $(PYTHON) -m venv .venv/serving-$$tool && .venv/serving-$$tool/bin/python -m pip install --quiet --requirement tests/serving/$$tool.txt || exit 1; done
	if command -v npm >/dev/null; then mkdir -p .venv/serving-js && cp tests/serving/package.json .venv/serving-js/ && npm install --silent --ignore-scripts --prefix .venv/serving-js; fi
	touch $@

search: .venv/installed  ## the main job on the embedded default task
	$(BIN)/nash-search --budget-ms 70% --budget-ms 50%

test: .venv/installed  ## what a newcomer runs (under 6 minutes)
	$(TEST) -m 'not slow'

test-all: .venv/installed-engines .venv/installed-serving  ## every crash, family, fresh-process, Ray, browser and PostgreSQL case too (under 45 minutes)
	$(TEST)

test-oldest: .venv/installed  ## pruner, models and clock on the oldest transformers that pyproject.toml admits
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .venv/oldest transformers==$(OLDEST)
	PYTHONPATH=.venv/oldest $(TEST) -m 'not slow' tests/pruner tests/test_modeling_nash.py tests/test_families.py tests/latency

lint: .venv/installed  ## format, lint rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dashboard: .venv/installed  ## the newest study in the Optuna dashboard, on loopback
	$(BIN)/nash-search dashboard

clean:  ## remove the environment and build leftovers (results stay)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

gpu-wheels:  ## what a GPU image without network lacks, as wheels in build/wheels (30 MB at most, without Ray and CTranslate2)
	$(PYTHON) -m experiments.gpu.wheels build/wheels

gpu-study: .venv/installed-engines  ## all of it on a GPU, 8 minutes: RUN=A; a rehearsal without one: DEVICE=cpu TINY=1
	$(BIN)/python -m experiments gpu-study --run $(or $(RUN),A) --device $(or $(DEVICE),cuda) $(if $(TINY),--tiny)

study: .venv/installed-engines  ## one experiment: NAME=clock [ARGS="--runs 5"]; without NAME their list
	@$(BIN)/python -m experiments $(NAME) $(ARGS)
