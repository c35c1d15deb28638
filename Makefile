# Every target makes the virtual environment it needs. `make help` lists them.
VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= python3
SEEDS ?= 1000
SEED ?= 0

.PHONY: help demo test lint sim replay bench guard scale chaos failover mutants lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The exact versions of requirements.lock, checked by hash; then this checkout on top of them.
$(VENV)/ready: requirements.lock pyproject.toml
	@echo "making $(VENV) (about a minute, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgenode needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/ready  ## five nodes, 200 jobs, two kills and a return, a verdict (about a minute)
	@$(PY) scripts/demo.py

test: $(VENV)/ready  ## all tests
	@$(PY) -m pytest -n auto

lint: $(VENV)/ready  ## ruff and mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

sim: $(VENV)/ready  ## SEEDS=1000 simulated meshes, each with its own faults
	@$(PY) -m edgenode simulate --seeds $(SEEDS)

replay: $(VENV)/ready  ## run SEED=n of the simulator again, and tell all that happens
	@$(PY) -m edgenode simulate --seed $(SEED) --trace

bench: $(VENV)/ready  ## throughput, latency, cost of three nodes, and of others (ARGS="--peers"); spreading on four
	@$(PY) scripts/bench.py $(ARGS)
	@$(PY) scripts/makespan.py

guard: $(VENV)/ready  ## whether a job has become dearer than recorded, by 10 % or 25 % (half a minute)
	@$(PY) scripts/guard.py

scale: $(VENV)/ready  ## bytes, links and times of 10 to 1,000 simulated members, and their plot (long)
	@$(PY) scripts/scale.py --plot scripts/scale.svg

chaos: $(VENV)/ready  ## hurt real nodes and their network at random, and judge the history (ARGS="--seed 7")
	@$(PY) scripts/chaos.py $(ARGS)

failover: $(VENV)/ready  ## kill, pause, cut off and starve real nodes: how soon their jobs run elsewhere (25 min)
	@$(PY) scripts/failover.py

mutants: $(VENV)/ready  ## plant known bugs, one at a time: the tests must find each (2 to 8 minutes)
	@$(PY) scripts/mutants.py

lock: $(VENV)/ready  ## choose versions anew, and write them with their hashes to requirements.lock
	@$(PY) -m pip install -q --disable-pip-version-check uv
	@$(PY) -m uv pip compile -q --universal --generate-hashes --upgrade --extra dev \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements.lock

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
