# make help                 this list
# make results/table1.csv   the environment if it is missing, then the demo up to this table (config.yaml); any target of
#                           the workflow will do, such as results/report.html: every table, every figure, and one page
#                           of them; `snakemake -n`, in the environment, names all
# make env                  the environment alone, in .venv; `source .venv/bin/activate` enters it
# make test                 the environment if it is missing, then every test
# make docs                 the pages as a site: open site/index.html
# make lint                 every linter, as before a change lands
# make lock                 envs/requirements.lock and envs/ccs.yaml anew (needs uv)
# make CPU=1 ...            the environment, if it is missing, without what only a GPU needs; with TORCH_INDEX=URL,
#                           an index of packages with PyTorch's builds for CPUs, without all that GPUs need

PYTHON ?= python3
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
CPU_ONLY := $(filter-out 0,$(CPU))
ifneq ($(if $(CPU_ONLY),,$(TORCH_INDEX)),)
$(error TORCH_INDEX goes with CPU=1: make CPU=1 TORCH_INDEX=$(TORCH_INDEX))
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Snakemake keeps a cache in the home, and ends with a traceback where there is none that it can write
ifneq ($(shell test -w "$$HOME" && echo writable),writable)
export HOME := $(CURDIR)/.snakemake
endif

.DEFAULT_GOAL := help
.PHONY: env help test docs lint lock
.DELETE_ON_ERROR:

env: .venv/.ready
ifneq ($(CPU_ONLY),)
	@grep -q CPU .venv/.ready || echo ".venv was there already, with libraries for GPUs; remove it to have it without"
endif

.venv/.ready: envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ccs needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv --clear .venv
ifneq ($(CPU_ONLY),)
	@echo "Installing the environment into .venv, for CPUs (about $(if $(TORCH_INDEX),2.5,5.7) GB) ..."
	$(BIN)/python envs/cpu.py $(if $(TORCH_INDEX),--torch-apart) > .venv/requirements.lock
	$(PIP) --require-hashes --no-deps -r .venv/requirements.lock
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url '$(TORCH_INDEX)' $$($(BIN)/python envs/cpu.py --torch))
else
	@echo "Installing the environment into .venv (about 7 GB with the GPU libraries that torch brings) ..."
	@test -e /dev/nvidiactl -o -e /dev/dxg -o "$$(uname)" != Linux || \
		echo "There is no GPU of NVIDIA here. For this machine alone, make CPU=1 leaves 1.3 GB out; see docs/install.md"
	$(PIP) --require-hashes -r envs/requirements.lock
endif
	$(PIP) --no-deps --no-build-isolation -e .
	@echo "made$(if $(CPU_ONLY), with CPU=1)" > $@

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

results/%: env FORCE
	snakemake --cores all $@

FORCE: ;

test: env
	pytest -n auto --dist worksteal

docs: env
	python docs/site.py

lint: env
	ruff check .
	ruff format --check .
	snakefmt --check .
	pyrefly check --summary=none
	lint-imports --no-cache --no-logo
	snakemake --lint

lock:
	uv pip compile pyproject.toml --group dev --extra all --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade --output-file envs/requirements.lock
	$(BIN)/python envs/conda.py
