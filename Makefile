# `make` lists the targets. Each does its own set-up in .venv and a warm one costs nothing.

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=
# Folder of photographs with labels, which `make accuracy` skips where it is absent (docs/models.md).
CAMVID ?= data/camvid
# For the verbs of edgemoe, which have their own defaults: MODEL, CONFIG, IMAGES, OUT, ONLY, BOARD, FLOW, HOST, BUNDLE, ARGS.

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
PINS := pyproject.toml constraints.txt
PACKAGES := hw/edgemoe_hw models/edgemoe_models sim/edgemoe_sim sw/edgemoe

# A value for the shell, whatever is in it: names of files may have spaces and quotes.
quoted = '$(subst ','\'',$(1))'
# MODEL=... as --model ..., but only where it is given.
option = $(if $($(1)),--$(2) $(call quoted,$($(1))))
MODEL_OPTION = $(call option,MODEL,model)
CONFIG_OPTION = $(call option,CONFIG,config)
OUT_OPTION = $(call option,OUT,out)

export PYTHON
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help sim demo bench frames scaling ablation accuracy synth timing fit explore utilisation hwh bitstream flash test test-all test-pynq formal lint dist docs clean \
    board vivado tools

help:
	@awk -F ':.*## ' '/^##@ / { printf "\n%s:\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'MODEL, CONFIG  as `edgemoe sim --help` has them; OUT, a folder for what is made'
	@echo 'IMAGES         number of scenes (make sim); ONLY=accelerator or baselines (make bench)'
	@echo 'CAMVID         folder of CamVid (make accuracy), default $(CAMVID)'
	@echo 'BOARD          one of `edgemoe boards`; HOST=user@name of a board, BUNDLE=file'
	@echo 'ARGS           further options of the verb that a target calls'
	@echo 'PYTHON         $(PYTHON), 3.10 or newer, used when .venv is made'

##@ Run it
sim: tools $(VENV)/.sim ## MODEL on the simulated accelerator (CONFIG), every tensor compared
	$(BIN)/edgemoe sim $(MODEL_OPTION) $(CONFIG_OPTION) $(call option,IMAGES,images) $(OUT_OPTION) $(ARGS)

demo: $(VENV)/.demo ## a stream, live on a local web page
	$(BIN)/edgemoe demo $(MODEL_OPTION) $(CONFIG_OPTION) $(call option,BUNDLE,bundle) $(ARGS)

##@ Measure
bench: tools $(VENV)/.$(if $(filter accelerator,$(ONLY)),sim,baselines) ## cycles on the simulated RTL, the same models on CPU and GPU
	$(BIN)/edgemoe bench $(MODEL_OPTION) $(CONFIG_OPTION) $(call option,ONLY,only) $(OUT_OPTION) $(ARGS)

frames: tools $(VENV)/.sim ## tasks of a frame, and images of a batch, in one program: cycles on the RTL
	$(BIN)/edgemoe study frames $(MODEL_OPTION) $(CONFIG_OPTION) $(ARGS)

scaling: tools $(VENV)/.sim ## cycles against array, tokens, experts, tasks, batch, DRAM: estimated; ARGS=--rtl runs some
	$(BIN)/edgemoe study scaling $(OUT_OPTION) $(ARGS)

ablation: tools $(VENV)/.sim ## cycles and DRAM bytes with each technique replaced by its naive form
	$(BIN)/edgemoe ablation $(MODEL_OPTION) $(CONFIG_OPTION) $(OUT_OPTION) $(ARGS)

accuracy: tools $(VENV)/.test ## metrics of float, PTQ, QAT, Brevitas and RTL on held-out scenes and photographs; expert loads
	OMP_NUM_THREADS=1 $(BIN)/edgemoe accuracy $(MODEL_OPTION) $(CONFIG_OPTION) $(ARGS)
	$(if $(MODEL),,OMP_NUM_THREADS=1 $(BIN)/edgemoe accuracy --model m3vit-tiny-camvid $(CONFIG_OPTION) --data camvid \
	    --data-root $(call quoted,$(CAMVID)) --split test --label-size 192x256 --scenes 233 --rtl-images 2 \
	    --skip-missing --json build/accuracy-camvid.json)
	OMP_NUM_THREADS=1 $(BIN)/edgemoe expert-load $(MODEL_OPTION)

##@ Hardware
synth: $(VENV)/.synth ## resources of CONFIG by Yosys
	$(BIN)/edgemoe synth $(CONFIG_OPTION) $(OUT_OPTION) $(ARGS)

timing: $(VENV)/.synth ## estimate of the clock of CONFIG (or BOARD), its slowest paths by source line
	$(BIN)/edgemoe timing $(CONFIG_OPTION) $(call option,BOARD,config) $(OUT_OPTION) $(ARGS)

explore: $(VENV)/.explore ## BOARD's configurations: the fastest for MODEL that fits its FPGA
	$(BIN)/edgemoe explore $(call option,BOARD,board) $(MODEL_OPTION) $(CONFIG_OPTION) $(OUT_OPTION) $(ARGS)

fit: $(VENV)/.fit ## place and route for an ULX3S (ECP5) with open tools: a quarter of an hour
	$(BIN)/edgemoe fit $(OUT_OPTION) $(ARGS)

utilisation: $(VENV)/.synth ## resources of every board's configuration (or BOARD's) by Yosys
	$(BIN)/edgemoe boards --utilisation $(call option,BOARD,only)

hwh: board $(VENV)/.sim ## hardware handoff of BOARD for PYNQ, without Vivado
	@$(BIN)/edgemoe boards hwh $(call quoted,$(BOARD)) $(ARGS)

bitstream: board $(if $(filter-out vivado,$(FLOW)),,vivado) $(VENV)/.synth ## bitstream of BOARD with Vivado, or with FLOW=openxc7
	@$(BIN)/edgemoe boards bitstream $(call quoted,$(BOARD)) $(call option,FLOW,flow) $(ARGS)

flash: board $(VENV)/.sim ## BOARD's bitstream, BUNDLE and runtime to HOST (user@name); self-test there
	@$(BIN)/edgemoe boards flash $(call quoted,$(BOARD)) --host $(call quoted,$(HOST)) $(call option,BUNDLE,bundle) $(ARGS)

##@ Develop
test: tools $(VENV)/.test ## fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow" $(PYTEST_ARGS) \
	    && echo 'make test: all passed' || { echo 'make test: FAILED' >&2; exit 1; }

test-all: tools $(VENV)/.test $(VENV)/.formal ## all tests, the slow ones too
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS) \
	    && echo 'make test-all: all passed' || { echo 'make test-all: FAILED' >&2; exit 1; }

test-pynq: tools $(VENV)/.sim ## tests of the PYNQ device with pynq 3.0.1, 3.1.2 and 4.0.0 (ARGS=3.1.2), in build/pynq-*
	@PYTHONPATH=models $(BIN)/python tools/pynq_versions.py $(ARGS)

formal: tools $(VENV)/.formal ## proofs of bus rules, queues, registers and supervisor (docs/formal.md): a minute
	@$(BIN)/python tools/formal.py $(ARGS)

lint: $(VENV)/.lint ## ruff and mypy
	$(BIN)/ruff check $(PACKAGES) tests tools
	$(BIN)/ruff format --check $(PACKAGES) tests tools
	$(BIN)/mypy $(PACKAGES) tools
	$(BIN)/lint-imports --no-cache

dist: tools $(VENV)/.lint ## wheel and source distribution, both proved in fresh environments; some minutes
	$(BIN)/python tools/dist.py

docs: $(VENV)/.docs ## the documentation as a site, in build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo 'The site is in build/site: open build/site/index.html'

clean: ## remove build results and caches, keep .venv
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard hw models sim sw tests boards) -name __pycache__ -type d -prune -exec rm -rf {} +

# Before anything is downloaded. A board's variants are tables of its data file.
board:
	@names=; for file in boards/*/board.toml; do \
	    name=$${file%/board.toml}; name=$${name##*/}; names="$$names $$name"; \
	    while read -r line; do case $$line in "[variants."*) \
	        line=$${line#*.}; names="$$names $$name-$${line%]*}" ;; esac; done < "$$file"; done; \
	for name in $$names; do test "$$name" != $(call quoted,$(BOARD)) || exit 0; done; \
	echo "edgemoe: BOARD must be one of$$names" >&2; exit 1

vivado:
	@.ci/check-tools vivado

tools:
	@.ci/check-tools $(if $(wildcard $(VENV)/.base),,python) g++

# One stamp a set of dependencies; a change of the pins installs again.
$(VENV)/.base: $(PINS)
	@.ci/check-tools python
	@$(BIN)/python -c 'import pip' 2>/dev/null || { \
	    echo 'Set-up: virtual environment in $(VENV)'; rm -rf $(VENV); $(call quoted,$(PYTHON)) -m venv $(VENV); }
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

$(VENV)/.formal: $(VENV)/.synth
	@echo 'Set-up: bitwuzla (once)'
	@$(PIP) --quiet -e '.[sim,synth,formal]'
	@touch $@

$(VENV)/.explore: $(VENV)/.synth
	@echo 'Set-up: Dask (once)'
	@$(PIP) --quiet -e '.[sim,synth,explore]'
	@touch $@

$(VENV)/.baselines: $(VENV)/.base
	@echo 'Set-up: PyTorch, ONNX Runtime, OpenVINO (once, some minutes)'
	@$(PIP) torch==2.13.0
	@$(PIP) --quiet -e '.[sim,baselines]'
	@touch $@ $(VENV)/.sim

$(VENV)/.demo: $(VENV)/.sim
	@echo 'Set-up: web server (once)'
	@$(PIP) --quiet -e '.[sim,demo]'
	@touch $@

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
	@$(PIP) --quiet -e '.[sim,train,onnx,baselines,foreign,board,serial,demo,serve,explore,notebooks,video,dev]'
	@touch $@ $(VENV)/.sim $(VENV)/.baselines $(VENV)/.lint $(VENV)/.demo
