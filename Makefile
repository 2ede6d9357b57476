# Everything a developer does, each on a fresh clone with only make and Python >= 3.11.
#
#   make setup   the virtual environment .venv with locked dependencies
#   make demo    start the platform and train a classifier on it
#   make test    all tests (TESTS="tests/storage -k uris" for some)
#   make test-fast   those that need the fewest processes
#   make test-docker  the whole contract of engines on a Docker daemon: minutes
#   make test-newer-docker  the same on the newest Docker, built of Go modules: half an hour the
#                first time (DAEMONS=forky: on the Docker and the podman of that Debian)
#   make reference  ask the newest BuildKit again what it makes of the table of Dockerfiles
#   make fuzz    20,000 random jobs against the fence around jobs, 500 kills of a bake: hours
#   make mutants  take each access check away and see that the tests notice: two minutes
#   make lint    formatting, rules, types, layers, documentation
#   make wheel   the package, under dist/: for `pip install dist/NAME[server]`
#   make base-image  build neuro/base, and push it to the platform that you are logged in to
#   make bench   measure, and write a table
#   make docs    the documentation as a site, under site/
#   make format  let ruff rewrite what it can
#   make lock    resolve the dependencies anew into requirements/

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
TESTS ?=

# The first Python that is new enough and can make a virtual environment: Debian's own python3
# cannot without python3-venv, and a version manager's shim may stand for a Python that is not there.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$python && break; done)

# Containers often say that Python shall write no bytecode: then each of the thousands of processes
# of a test run would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# Versions are checked against the index only when they change: a stamp remembers what is installed.
SETUP := $(VENV)/.neuro-setup
DEMO := $(VENV)/.neuro-demo
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help setup demo test test-fast test-docker test-newer-docker reference fuzz mutants lint base-image bench wheel docs format lock clean
help:
	@sed -n 's/^#   //p' Makefile

setup: $(SETUP)
	@echo "Done: . $(VENV)/bin/activate puts \`neuro\` on your PATH"

$(SETUP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed:" \
		"install it (Debian: apt install python3-venv) or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the locked dependencies into $(VENV)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 -x '/templates/.*/' src/neuro
	@$(BIN)/pre-commit install >/dev/null 2>&1 || echo "No hooks of git here (no clone, or core.hooksPath is set): run make lint before a commit"
	@touch $@

$(DEMO): $(SETUP) examples/digits/requirements.txt
	@echo "Installing what the example's job and some tests import into $(VENV)"
	@$(PIP) install --require-hashes -r examples/digits/requirements.txt
	@touch $@

demo: $(DEMO)
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/digits/run.sh

# The tests wait for processes more than they compute, so one worker more than there are processors.
# A file is one worker's: what its tests share is made once.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	--durations 10
test: $(DEMO)
	@$(PYTEST) $(TESTS)

test-fast: $(DEMO)
	@$(PYTEST) -m "not slow" $(TESTS)

# In one process: each has a daemon of its own.
test-docker: $(DEMO)
	@$(BIN)/python -m pytest --durations 10 -m docker $(or $(TESTS),tests/engines)

# Daemons come into .cache/daemons once. In the place of Debian's own: needs root, and mmdebstrap or Go.
DAEMONS ?= newest
test-newer-docker: $(DEMO)
	@$(BIN)/python -m tests.engines.newer_daemons $(DAEMONS) $(TESTS)

# The tests compare our builder with what this writes: tests/builder/record.json.
reference: $(DEMO)
	@$(BIN)/python -m tests.engines.newer_daemons newest -- -m tests.builder.record

fuzz: $(SETUP)
	@NEURO_FUZZ_CASES=20000 NEURO_TEST_KILLS=500 NEURO_FUZZ_VERDICTS=10000 $(BIN)/python -m pytest \
		tests/security/test_fuzz.py tests/faults/test_kills.py tests/flow/evaluate/test_one_verdict.py

mutants: $(SETUP)
	@$(BIN)/python -m tests.server.access.mutants

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/zensical build --strict
	$(BIN)/zensical build --strict --config-file zensical.ru.toml

wheel: $(SETUP)
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

# BASE_ARGUMENTS are words for the build, such as --build-arg VARIANT=small: see images/base/Dockerfile.
BASE_IMAGE ?= image:neuro/base:latest
BASE_ARGUMENTS ?=
base-image: $(SETUP)
	@if docker info >/dev/null 2>&1; then \
		docker build --tag neuro/base $(BASE_ARGUMENTS) images/base && $(BIN)/neuro image push neuro/base $(BASE_IMAGE); \
	else \
		$(BIN)/neuro image build --force-overwrite $(BASE_ARGUMENTS) --tag $(BASE_IMAGE) images/base; \
	fi

bench: $(SETUP)
	@$(BIN)/python -m benchmarks $(BENCH)

docs: $(SETUP)
	@$(BIN)/zensical build --strict --clean
	@$(BIN)/zensical build --strict --config-file zensical.ru.toml
	@echo "Open site/index.html"

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One file for every supported Python and platform; no index address in it, so any mirror serves it.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" --upgrade
lock: $(SETUP)
	@$(PIP) install uv
	$(LOCK) pyproject.toml --extra server --extra postgres --group dev --output-file requirements/dev.txt
	$(LOCK) examples/digits/requirements.in --constraints requirements/dev.txt \
		--output-file examples/digits/requirements.txt

clean:
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
