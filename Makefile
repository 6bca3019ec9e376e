# dataflow: what there is to run. `make` alone lists it.
#
# Every target makes its own environment in $(VENV) and installs only when pyproject.toml changed.

VENV ?= .venv
PYTHON ?= python3

BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := $(READY)-demo
DEV := $(READY)-dev
DOCS := $(READY)-docs

# Files of tests run two at a time, those on the test bed one after the other (tests/conftest.py).
SIDE_BY_SIDE ?= -n 2

# Agents and workers are processes of their own: where none may keep what it compiled, each of them
# compiles Dask and xarray anew, which takes longer than all else that it does.
unexport PYTHONDONTWRITEBYTECODE

# uv takes seconds where pip takes minutes; pip does when uv cannot be had.
INSTALL = install() { \
	[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet uv || true; \
	if [ -x $(BIN)/uv ] && $(BIN)/uv pip install --quiet --python $(BIN)/python "$$@"; then return; fi; \
	echo "uv did not do it, trying pip"; \
	$(BIN)/python -m pip install --quiet --upgrade pip && $(BIN)/python -m pip install --quiet "$$@"; \
	}; install

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo notebooks test lint pytest docs bench oidc-provider bed lab faults bed-down clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(DEMO) ## three sites on this machine, one mixed graph: plan, run, result, picture
	$(BIN)/python examples/demo.py

test: lint pytest ## everything that must hold: ruff, mypy, import contracts, pytest

lint: $(DEV) ## ruff, mypy and the import contracts alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

pytest: $(DEV) ## pytest alone; choose with ARGS="tests/graph -k keys"
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

docs: $(DOCS) ## the documentation, into docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(DEV) ## every benchmark that can run here, in its quick form, as JSON lines
	@found=; failed=; \
	for file in benchmarks/[!_]*.py; do \
		[ -f "$$file" ] || continue; found=yes; echo "== $$file" >&2; \
		status=0; $(BIN)/python "$$file" --quick --json || status=$$?; \
		case $$status in 0|2) ;; *) failed="$$failed $$file" ;; esac; \
	done; \
	[ -n "$$found" ] || { echo "no benchmarks yet" >&2; exit 2; }; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

oidc-provider: ## a real issuer of tokens, for its test (needs npm)
	npm install --no-audit --no-fund --prefix "$$HOME/.cache/dataflow/oidc-provider" oidc-provider@9

bed: ## real sites on this machine (needs root)
	hpc/testbed/bed-up --python "$$($(PYTHON) -c 'import sys; print(f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}")')"

notebooks: $(DEMO) ## JupyterLab over the example notebooks, to walk through them
	@$(INSTALL) 'jupyterlab>=4.3'
	$(BIN)/jupyter lab examples/notebooks/00_tutorial.ipynb $(ARGS)

lab: $(DEV) ## a person's story in a real JupyterLab, in headless Chromium; pictures in e2e-out/
	DATAFLOW_E2E=1 E2E_PICTURES=e2e-out $(BIN)/python -m pytest tests/e2e $(ARGS)

faults: $(DEV) ## kill, hang, cut and slow every part in every phase, on the bed; ARGS="--only agent:hang" (needs root)
	$(BIN)/python -m dataflow.testing.faults $(ARGS)

bed-down: ## take the test bed down
	hpc/testbed/bed-down

clean: ## remove environments, caches and what was built
	rm -rf .venv .venv313 .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf docs/_build demo-out e2e-out build dist
	find dataflow tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old or missing: dataflow needs Python 3.11 or newer. Try: make PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV) (first time, or pyproject.toml changed)"
	@$(INSTALL) --editable '.[all,demo]'
	@touch $@

$(DEV): pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV), with what developers need (first time, or pyproject.toml changed)"
	@$(INSTALL) --editable '.[all,demo]' --group dev
	@touch $@ $(DEMO)

$(DOCS): pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing into $(VENV), with what the documentation needs (first time, or pyproject.toml changed)"
	@$(INSTALL) --editable '.[all,demo]' --group docs
	@touch $@
