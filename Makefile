# make run     set up, then the quickstart study (about a minute on 2 cores)
# make test    set up, then every test
# GPU=1        the same on an NVIDIA GPU, in an environment of its own: TensorFlow's two packages never mix
.DEFAULT_GOAL := help
.PHONY: help run test lint bench venv ray lock clean

ifdef GPU
VENV := .venv-gpu
LOCK := requirements-gpu.txt
else
VENV := .venv
LOCK := requirements.txt
endif
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The newest Python that TensorFlow has wheels for and that can make environments.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)

help:
	@sed -n '1,3s/^# //p' Makefile

venv: $(READY)

$(READY): $(LOCK)
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 and < 3.14 with venv was found; install one (Debian: apt install python3-venv), or: make PYTHON=/path/to/python" >&2; exit 2; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version), about 1.5 GB; this takes a minute or two"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@touch $@

# Ray, to train on a cluster of its own kind: an extra, in the environment that is there.
ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-ray.txt

run: $(READY)
	$(BIN)/python -m search run quickstart

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	@for question in pricing train_speed memory; do echo "== $$question"; $(BIN)/python benchmarks/$$question.py || exit 1; done

# Needs uv. Bounds are in pyproject.toml; the lock files hold the whole tree with hashes, for every platform.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
WITH := --extra notebook --extra onnx --extra postgres --extra test
lock:
	$(COMPILE) --extra cpu $(WITH) --output-file requirements.txt
	$(COMPILE) --extra gpu $(WITH) --output-file requirements-gpu.txt
	$(COMPILE) --extra ray --constraint requirements.txt --output-file requirements-ray.txt

clean:
	rm -rf .venv .venv-gpu studies/*/run .mypy_cache .ruff_cache .pytest_cache .hypothesis
