# make run     set up, then the quickstart study (about a minute on 2 cores)
# make test    set up, then the tests (make test-long: long scenarios and further cases, which it leaves out;
#              make test-all: both)
# GPU=1        the same on an NVIDIA GPU, in an environment of its own: TensorFlow's two packages cannot share one
.DEFAULT_GOAL := help
.PHONY: help run test test-long test-all lint bench venv ray tensorboard mlflow tflm lock clean

ifdef GPU
VENV := .venv-gpu
LOCK := requirements-gpu.txt
COST := 7.4 GB to download and store, several minutes
else
VENV := .venv
LOCK := requirements.txt
COST := about 1.5 GB, a minute or two
endif
BIN := $(VENV)/bin

# The newest Python that TensorFlow has wheels for and that can make environments, with ensurepip or with a pip of its own.
FITS := import importlib.util as util, sys, venv; \
	sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 14) and (util.find_spec("ensurepip") or util.find_spec("pip"))))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)
ENVIRONMENT = python='$(PYTHON)'; \
	test -n "$$python" || { echo "No Python >= 3.11 and < 3.14 with venv was found; install one (Debian: apt install python3-venv), or: make PYTHON=/path/to/python" >&2; exit 2; }; \
	$$python .ci/environment.py $(VENV) $(LOCK) --cost '$(COST)'

help:
	@sed -n '1,4s/^# //p' Makefile

venv:
	@$(ENVIRONMENT)

# Extras, in the environment that is there: Ray to train on an existing cluster, two experiment trackers, and the runtime of
# microcontrollers for the test of docs/microcontroller.md.
ray tensorboard mlflow tflm:
	@$(ENVIRONMENT) --extra requirements-$@.txt

run: venv
	$(BIN)/python -m search run quickstart

# The tiers of docs/development.md: each test is in exactly one of test and test-long.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: venv
	$(PYTEST) -m "not long"

test-long: venv
	$(PYTEST) -m long

test-all: venv
	$(PYTEST)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: venv
	@for question in cost_speed train_speed memory; do echo "== $$question"; $(BIN)/python benchmarks/$$question.py || exit 1; done

# Needs uv. Bounds are in pyproject.toml; the lock files hold the whole tree with hashes, for every platform.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
WITH := --extra notebook --extra onnx --extra postgres --extra test
lock:
	$(COMPILE) --extra cpu $(WITH) --output-file requirements.txt
	$(COMPILE) --extra gpu $(WITH) --output-file requirements-gpu.txt
	for extra in ray tensorboard mlflow tflm; do \
		$(COMPILE) --extra $$extra --constraint requirements.txt --output-file requirements-$$extra.txt || exit 1; done

clean:
	rm -rf .venv .venv-gpu studies/*/run .mypy_cache .ruff_cache .pytest_cache .hypothesis
