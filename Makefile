# Every target does its own set-up in .venv. `make setup CONSTRAINTS=own.txt` for another tested set.
PY ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PYTHON := $(VENV)/bin/python

.PHONY: paper setup demo real results replicas test test-slow bench bench-full check format clean

# A comma in the text of a call would end its argument there.
EXTRAS := [dev,track,deepspeed,slurm,joblib,endpoint,tools,adapters,gguf,quantised,reasoning,textgrad,math,serve,lm-eval,inspect]

# The extras that a target needs: demo installs the core alone.
define install
	$(PYTHON) -m pip install -q -c $(CONSTRAINTS) torch
	$(PYTHON) -m pip install -q -c $(CONSTRAINTS) -e '.$(1)'
	touch $@
endef

setup: $(VENV)/.stamp-all

$(PYTHON):
	$(PY) -m venv $(VENV)

$(VENV)/.stamp-core: pyproject.toml $(CONSTRAINTS) | $(PYTHON)
	$(call install,)

$(VENV)/.stamp-dev: pyproject.toml $(CONSTRAINTS) | $(PYTHON)
	$(call install,[dev])

$(VENV)/.stamp-all: pyproject.toml $(CONSTRAINTS) | $(PYTHON)
	$(call install,$(EXTRAS))

demo: $(VENV)/.stamp-core  ## the relay in its three settings: outputs/demo
	$(PYTHON) -m rmas_train -m experiment=relay,relay_scrambled,relay_dialect run_dir=outputs/demo

# Between published models; SMALL=<folder with them>, else from the hub. RUN: an experiment.
RUN ?= notes
real: $(VENV)/.stamp-core  ## notes from model to model: outputs/real/<RUN>; RUN=notes_hops and others
	$(PYTHON) -m rmas_train experiment=$(RUN) run_dir=outputs/real/$(RUN) resume=auto \
		$(if $(SMALL),small=$(SMALL))

results: $(VENV)/.stamp-all  ## every system and control, one table: outputs/results; SMALL as for real
	$(PYTHON) scripts/results.py --out outputs/results $(if $(SMALL),--small $(SMALL))

paper: $(VENV)/.stamp-core  ## what docs/experiments.md quotes: outputs/paper; SMALL as for real
	$(PYTHON) scripts/paper.py --out outputs/paper $(if $(SMALL),--small $(SMALL))

replicas: $(VENV)/.stamp-core  ## the five published systems, tiny: outputs/replicas
	OMP_NUM_THREADS=2 $(PYTHON) scripts/replicas.py

test: $(VENV)/.stamp-dev  ## on two cores, one thread each
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.stamp-all  ## real training, DeepSpeed and FSDP2 on two processes, hostile input
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal -m slow

bench: $(VENV)/.stamp-core  ## speed and memory as ratios: outputs/bench/results.json
	$(PYTHON) benchmarks/run.py

bench-full: $(VENV)/.stamp-core  ## the same at larger sizes, without a time limit
	$(PYTHON) benchmarks/run.py --full --out outputs/bench_full

check: $(VENV)/.stamp-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.stamp-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf outputs dist build
