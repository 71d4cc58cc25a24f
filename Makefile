# `make` lists the targets. Each does its own set-up in .venv and a warm one costs nothing.

PYTHON ?= python3
MODEL  ?= m3vit-micro
CONFIG ?= pynq-z2
IMAGES ?=
OUT    ?=
ONLY   ?=
WORKERS ?= 2
BOARD  ?=
HOST   ?=
BUNDLE ?=
PYTEST_ARGS ?=

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
PINS := pyproject.toml constraints.txt
PACKAGES := hw/edgemoe_hw models/edgemoe_models sim/edgemoe_sim sw/edgemoe

# MODEL=, CONFIG= as options, but only where the user gave them; the commands have their own defaults.
given = $(if $(filter command environment,$(firstword $(origin $(1)))),$(2) $($(1)))
SELECTED = $(call given,MODEL,--model) $(call given,CONFIG,--config)

export PYTHON
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help sim test test-all test-pynq lint bench ablation accuracy synth fit hwh bitstream flash utilisation docs clean tools

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r t d; do \
	    printf '  make %-11s %s\n' "$$t" "$$d"; done
	@echo
	@echo '  MODEL=$(MODEL)  CONFIG=$(CONFIG)  IMAGES=number of images  OUT=folder  WORKERS=$(WORKERS) test processes'
	@echo '  ONLY=accelerator or baselines (make bench)'
	@echo '  BOARD=one of: edgemoe boards  HOST=user@name of a board  BUNDLE=file for it'
	@echo '  PYTHON=$(PYTHON), 3.10 or newer, used when .venv is made'

sim: tools $(VENV)/.sim ## run MODEL on the Verilated accelerator (CONFIG), compare every tensor
	$(BIN)/edgemoe sim --model $(MODEL) --config $(CONFIG) $(if $(IMAGES),--images $(IMAGES)) $(if $(OUT),--out $(OUT))

test: tools $(VENV)/.test ## fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow" $(PYTEST_ARGS) \
	    && echo 'make test: all passed' || { echo 'make test: FAILED' >&2; exit 1; }

test-all: tools $(VENV)/.test $(VENV)/.synth ## all tests, the slow ones too
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS) \
	    && echo 'make test-all: all passed' || { echo 'make test-all: FAILED' >&2; exit 1; }

# The PYNQ that Zynq-7000 boards have. It needs setuptools < 82 (pkg_resources) and pycparser < 3; constraints.txt has both.
test-pynq: tools ## tests of the PYNQ device with pynq 3.1.2, in build/pynq3
	@test -x build/pynq3/bin/pytest || { echo 'Set-up: pynq 3.1.2 in build/pynq3 (once, some minutes)'; \
	    rm -rf build/pynq3 && $(PYTHON) -m venv build/pynq3 && grep -v '^pynq==' constraints.txt > build/pynq3/pins.txt \
	    && build/pynq3/bin/python -m pip install --quiet --disable-pip-version-check -c build/pynq3/pins.txt \
	        setuptools pynq==3.1.2 hypothesis pytest -e '.[sim]'; }
	@build/pynq3/bin/python -m pytest -q tests/sw/test_pynq.py tests/sw/test_runtime_contract.py \
	    tests/sw/test_runtime_faults.py tests/board/test_hwh.py -k "pynq or hwh" $(PYTEST_ARGS)

lint: $(VENV)/.lint ## ruff and mypy
	$(BIN)/ruff check $(PACKAGES) tests tools
	$(BIN)/ruff format --check $(PACKAGES) tests tools
	$(BIN)/mypy $(PACKAGES)

bench: tools $(VENV)/.$(if $(filter accelerator,$(ONLY)),sim,baselines) ## cycles on the simulated RTL, the same models on CPU and GPU
	$(BIN)/edgemoe bench $(SELECTED) $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

ablation: tools $(VENV)/.sim ## cycles and DRAM bytes with each technique replaced by its naive form
	$(BIN)/edgemoe ablation $(SELECTED) $(if $(OUT),--out $(OUT))

accuracy: tools $(VENV)/.test ## metrics of float, PTQ, QAT, Brevitas and RTL on held-out scenes, and expert loads
	OMP_NUM_THREADS=1 $(BIN)/edgemoe accuracy $(SELECTED)
	OMP_NUM_THREADS=1 $(BIN)/edgemoe expert-load $(call given,MODEL,--model)

synth: $(VENV)/.synth ## resources of CONFIG by Yosys
	$(BIN)/edgemoe synth --config $(CONFIG) $(if $(OUT),--out $(OUT))

fit: $(VENV)/.fit ## place and route for an ULX3S (ECP5) with open tools only: clock, bitstream; a quarter of an hour
	$(BIN)/edgemoe fit $(if $(OUT),--out $(OUT))

utilisation: $(VENV)/.synth ## resources of every board's configuration (or BOARD's) by Yosys
	$(BIN)/edgemoe boards --utilisation $(if $(BOARD),--only "$(BOARD)")

hwh: $(VENV)/.sim ## hardware handoff of BOARD for PYNQ, without Vivado
	@$(BIN)/edgemoe boards hwh "$(BOARD)"

bitstream: $(VENV)/.synth ## bitstream of BOARD with Vivado, if its configuration fits
	@$(BIN)/edgemoe boards bitstream "$(BOARD)"

flash: $(VENV)/.sim ## copy BOARD's bitstream, BUNDLE and runtime to HOST (user@name), run the self-test there
	@$(BIN)/edgemoe boards flash "$(BOARD)" --host "$(HOST)" $(if $(BUNDLE),--bundle "$(BUNDLE)")

docs: $(VENV)/.docs ## the documentation as a site, in build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo 'The site is in build/site: open build/site/index.html'

clean: ## remove build results and caches, keep .venv
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard hw models sim sw tests boards) -name __pycache__ -type d -prune -exec rm -rf {} +

tools:
	@.ci/check-tools $(if $(wildcard $(VENV)/.base),,python) g++ perl

# One stamp a set of dependencies; a change of the pins installs again.
$(VENV)/.base: $(PINS)
	@.ci/check-tools python
	@$(BIN)/python -c 'import pip' 2>/dev/null || { \
	    echo 'Set-up: virtual environment in $(VENV)'; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@touch $@

$(VENV)/.sim: $(VENV)/.base
	@echo 'Set-up: simulation dependencies (once, about a minute)'
	@$(PIP) --quiet -e '.[sim]'
	@touch $@

$(VENV)/.lint: $(VENV)/.base
	@echo 'Set-up: ruff and mypy (once, about a minute)'
	@$(PIP) --quiet -e '.[dev]'
	@touch $@

$(VENV)/.synth: $(VENV)/.base
	@echo 'Set-up: Yosys (once, about a minute)'
	@$(PIP) --quiet -e '.[sim,synth]'
	@touch $@

$(VENV)/.baselines: $(VENV)/.base
	@echo 'Set-up: PyTorch, ONNX Runtime, OpenVINO (once, some minutes)'
	@$(PIP) torch==2.13.0
	@$(PIP) --quiet -e '.[sim,baselines]'
	@touch $@ $(VENV)/.sim

$(VENV)/.docs: $(VENV)/.base
	@echo 'Set-up: mkdocs (once, about a minute)'
	@$(PIP) --quiet -e '.[docs]'
	@touch $@

$(VENV)/.fit: $(VENV)/.synth
	@echo 'Set-up: nextpnr (once, about a minute)'
	@$(PIP) --quiet -e '.[sim,synth,fit]'
	@touch $@

# torch by itself and first: pip then takes a CPU build where one is at hand, instead of what another
# package's requirement would pull in.
$(VENV)/.test: $(VENV)/.base
	@$(PIP) --quiet find_libpython
	@$(BIN)/python -c 'import sys, find_libpython as f; sys.exit(not f.find_libpython())' || { \
	    echo 'edgemoe: the shared library of $(PYTHON) (libpython3) is missing' >&2; \
	    echo '  needed for: cocotb, which runs Python inside the simulator' >&2; \
	    echo '  install:    sudo apt-get install libpython3-dev   (Fedora: sudo dnf install python3-libs)' >&2; exit 1; }
	@echo 'Set-up: PyTorch (once, some minutes)'
	@$(PIP) torch==2.13.0
	@echo 'Set-up: test dependencies (once, about a minute)'
	@$(PIP) --quiet -e '.[sim,train,onnx,baselines,board,serial,demo,notebooks,video,dev]'
	@touch $@ $(VENV)/.sim $(VENV)/.baselines $(VENV)/.lint
