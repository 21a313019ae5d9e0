# Everything a user or CI types. The environment is .venv; PYTHON picks the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
TEST := $(BIN)/python -m pytest --numprocesses 2

.PHONY: help search install test test-all lint dashboard bench gpu-smoke study-clock study-coverage study-search study-search-real study-sparsity study-baselines study-second-task study-recipe study-headline study-headline-multi30k study-engines study-scale study-vocabulary study-shapes study-scaling study-multi30k clean

help:  ## what there is to type
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

install: .venv/installed  ## make .venv with the pinned dependencies

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,postgresql]'
	touch $@

.venv/installed-engines: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,postgresql,ctranslate2,onnxruntime]'
	touch $@

search: .venv/installed  ## the main job on the embedded default task
	$(BIN)/nash-search --budget-ms 70% --budget-ms 50%

test: .venv/installed  ## what a newcomer runs (under 12 minutes)
	$(TEST) -m 'not slow'

test-all: .venv/installed-engines  ## every crash, family, fresh-process, Ray, browser and PostgreSQL case too (under 45 minutes)
	$(TEST)

lint: .venv/installed  ## format, lint rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dashboard: .venv/installed  ## the newest study in the Optuna dashboard, on loopback
	$(BIN)/nash-search dashboard

clean:  ## remove the environment and build leftovers (results stay)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

bench: .venv/installed  ## what gates, cutting and memory cost in the pruner
	$(BIN)/python tests/bench_pruner.py

gpu-smoke: .venv/installed  ## under 5 minutes on a GPU: the clock's raw samples in results/gpu-smoke.json
	$(BIN)/python tests/studies/gpu_smoke.py

study-clock: .venv/installed  ## how far the clock holds here (30 minutes on idle cores, 75 on busy ones; goes on after a kill); results/reference/clock.json.gz
	$(BIN)/python tests/studies/clock.py

study-coverage: .venv/installed  ## how often `met` is said of a model on the boundary, in ms and in shares, asked once and again (2 minutes, no clock)
	$(BIN)/python tests/studies/coverage.py

study-search-real: .venv/installed  ## the same by real searches, three seeds each of ours, shared training and random (about 100 minutes; goes on after a kill)
	$(BIN)/python tests/studies/search_strategies.py --table results/reference/search-table.json.gz --real 24

study-search: .venv/installed  ## what a training second buys: the grid once (about an hour), then every strategy on it
	$(BIN)/python tests/studies/search_strategies.py

study-sparsity: .venv/installed  ## does a little encoder sparsity help? 72 trainings (about an hour; goes on after a kill)
	$(BIN)/python tests/studies/mild_sparsity.py

study-baselines: .venv/installed  ## NASH, its baselines and ablations: 78 trainings (about an hour; goes on after a kill)
	$(BIN)/python tests/studies/baselines.py

study-second-task: .venv/installed  ## the same questions on Multi30k: 12 trainings (about 40 minutes; DATA=folder of its JSONL files; goes on after a kill)
	$(BIN)/python tests/studies/second_task.py $(if $(DATA),--data $(DATA))

study-recipe: .venv/installed  ## how Multi30k's learning rate and labels were found: 8 trainings (about 15 minutes; DATA=folder of its JSONL files; goes on after a kill)
	$(BIN)/python tests/studies/recipe.py $(if $(DATA),--data $(DATA))

study-headline: .venv/installed-engines  ## 99 and 95 % of the quality on CTranslate2, certified (about 25 minutes; goes on after a kill)
	$(BIN)/nash-search --runtime ctranslate2 --profile thorough --trials 8 --budget-ms 55% --budget-ms 40% --study headline

study-headline-multi30k: .venv/installed-engines  ## the same on Multi30k (about 70 minutes; DATA=folder of its JSONL files; goes on after a kill)
	$(BIN)/nash-search --config results/multi30k-en-de/headline.yaml --data $(DATA) --source-column source --target-column target \
	  --model results/multi30k-en-de/teacher --budget-ms 60% --budget-ms 55% --budget-ms 40% --study headline-multi30k

study-engines: .venv/installed-engines  ## dense and pruned on eager, CTranslate2 and ONNX Runtime, side by side; STUDIES=finished ones, with quality (about 20 minutes)
	$(BIN)/python tests/studies/engines.py $(if $(STUDIES),--studies $(STUDIES))

study-scale: .venv/installed  ## 1 to 32 Ray workers on trials that sleep (about 15 minutes)
	$(BIN)/python tests/studies/search_scale.py

study-vocabulary: .venv/installed  ## what fewer tokens are worth in latency on a T5-small shape (about 3 minutes)
	$(BIN)/python tests/studies/vocabulary.py

study-shapes: .venv/installed-engines  ## where depth dominates latency and where width does, per engine, batch and length, two tasks (about 25 minutes; goes on after a kill)
	$(BIN)/python tests/studies/depth_and_width.py
	$(BIN)/python tests/studies/depth_and_width.py --model results/multi30k-en-de/teacher --rounds 3 --pairs 6 \
	  --out results/reference/depth-and-width-multi30k.jsonl.gz

study-scaling: .venv/installed  ## a step, a probe and a search as the model grows; the projected bill of T5-base and -large (about 15 minutes)
	$(BIN)/python tests/studies/scaling.py

study-multi30k: .venv/installed  ## the whole search on Multi30k (about 1 h 50 min; DATA=folder of its JSONL files; goes on after a kill)
	$(BIN)/nash-search --config multi30k-en-de --data $(DATA) --source-column source --target-column target \
	  --model results/multi30k-en-de/teacher --budget-ms 70% --budget-ms 50% --study multi30k
