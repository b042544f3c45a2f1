# make results/table1.csv   the environment if it is missing, then the workflow
# make test                 the environment if it is missing, then every test
# make lock                 envs/requirements.lock and envs/ccs.yaml anew (needs uv)

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Snakemake keeps a cache in the home, and ends with a traceback where there is none that it can write
ifneq ($(shell test -w "$$HOME" && echo writable),writable)
export HOME := $(CURDIR)/.snakemake
endif

.PHONY: env test lint lock
.DELETE_ON_ERROR:

env: .venv/.ready

.venv/.ready: envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ccs needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@echo "Installing the environment into .venv (about 6 GB with the GPU libraries that torch brings) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

results/%: env FORCE
	snakemake --cores all $@

FORCE: ;

test: env
	pytest -n auto --dist worksteal

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
