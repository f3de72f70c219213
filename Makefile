# Everything runs from a fresh clone: each target makes the environment it needs first.
# make demo | test | doctest | lint | docs | notebooks | bench | clean; see CONTRIBUTING.md.

SHELL := /bin/bash
PYTHON ?= python3
# Each worker compiles for itself and needs memory of its own; WORKERS=0 is one process.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
stamp = $(1:%=$(VENV)/.stamp-%)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test doctest lint docs notebooks notebooks-check bench bench-smoke peers clean

help:
	@echo "make demo        deblur a photograph (IMAGE=path for your own)"
	@echo "make test        the tests (ARGS='-k name' for some of them)"
	@echo "make doctest     the examples in the docstrings"
	@echo "make lint        ruff and pyright"
	@echo "make docs        the site, into site/"
	@echo "make notebooks   execute the notebooks and store them"
	@echo "make bench       all benchmarks, with the peers in environments of their own"
	@echo "make clean       remove the environments and what was built"

demo: $(call stamp,images)
	$(BIN)/python -m jinv.demo $(if $(IMAGE),--image "$(IMAGE)")

test: $(call stamp,tests)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# With JAX's defaults, as a reader has them: not with the strict settings of the tests.
doctest: $(call stamp,tests)
	$(BIN)/python -m pytest --doctest-modules jinv -o addopts= -o testpaths=jinv -q -n $(WORKERS)

lint: $(call stamp,tests lint)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m pyright

docs: $(call stamp,docs)
	$(BIN)/python -m mkdocs build --strict

notebooks: $(call stamp,notebooks)
	$(BIN)/python tools/notebooks.py build

notebooks-check: $(call stamp,notebooks)
	JINV_SMOKE=1 $(BIN)/python tools/notebooks.py check

bench: $(call stamp,bench) peers
	set -e; for name in $$($(BIN)/python -m benchmarks list | cut -d' ' -f1); do \
	  $(BIN)/python -m benchmarks run $$name; done
	$(BIN)/python -m benchmarks report

bench-smoke: $(call stamp,bench)
	$(BIN)/python -m benchmarks list | cut -d' ' -f1 | xargs -P $(or $(filter-out 0,$(WORKERS)),1) \
	  -I NAME $(BIN)/python -m benchmarks run NAME --smoke

peers: .venv-scico/.stamp .venv-deepinv/.stamp .venv-operators/.stamp

clean:
	rm -rf .venv .venv-scico .venv-deepinv .venv-operators site results/benchmarks/smoke

# An environment of the right Python is kept; the version is checked before one is made.
define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "jinv needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
@test -x $(1)/bin/python && $(1)/bin/python -m pip --version >/dev/null 2>&1 \
  || $(PYTHON) -m venv $(1)
endef

# The stamp says which extra was installed; a newer pyproject.toml installs it again.
$(VENV)/.stamp-%: pyproject.toml
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Peers stand alone, without jinv: their own requirements decide which JAX they get.
.venv-%/.stamp: pyproject.toml
	$(call make_venv,.venv-$*)
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check $$($(PYTHON) -c \
	  "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench-$*'])")
	@touch $@
