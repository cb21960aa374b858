# Tollgate: the commands a contributor needs. Each may be run again at any time; each installs what it needs.
# Only Python 3.13, Node 20 or newer (with npm) and git have to be there beforehand.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV_VERSION := 0.13.8
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
APPS := score ingest drift retrain
STAMP := $(VENV)/.setup-stamp
TWIN_NODE := twin/node/node_modules/.setup-stamp
TESTS_NODE := tests/node/node_modules/.setup-stamp
PYTEST_ARGS ?=
# Most tests wait for real servers more than they compute; more processes than this make two cores late.
TEST_PROCESSES ?= 2

.PHONY: help setup demo test check bench clean lock format twin-setup

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(TWIN_NODE) $(TESTS_NODE) ## Install everything into .venv and node_modules (no root needed)
	@echo "setup: ready; the command is $(VENV)/bin/tollgate"

$(PY):
	@bash tools/find-python.sh > /dev/null
	@echo "setup: creating $(VENV) with $$(bash tools/find-python.sh)"
	@"$$(bash tools/find-python.sh)" -m venv $(VENV)

$(STAMP): $(PY) requirements/dev.txt pyproject.toml
	@echo "setup: installing pinned Python packages (about a minute on a cold cache)"
	@test "$$($(UV) --version 2>/dev/null | cut -d' ' -f2)" = "$(UV_VERSION)" || $(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip sync --quiet --python $(PY) --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

$(TWIN_NODE): twin/node/package-lock.json
	@echo "setup: installing Azurite (about half a minute on a cold cache)"
	@cd twin/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(TESTS_NODE): tests/node/package-lock.json
	@echo "setup: installing the tests' Node clients"
	@cd tests/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

twin-setup: $(STAMP) $(TWIN_NODE)

demo: twin-setup ## Start a fresh twin, send one event and one request through real apps, show both
	@$(PY) -m twin.demo

test: setup ## Run all tests on real servers
	@$(PY) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

check: setup ## Format, lint, types, imports, locks
	@echo "check: format"; $(VENV)/bin/ruff format --check --quiet .
	@echo "check: lint"; $(VENV)/bin/ruff check --quiet .
	@echo "check: types"; $(VENV)/bin/mypy
	@echo "check: imports"; $(VENV)/bin/lint-imports
	@echo "check: ok"

format: $(STAMP) ## Format and fix what can be fixed
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

bench: setup ## Run the benchmarks, print their tables, write build/bench/*.json
	@$(PY) -m benchmarks

lock: $(PY) ## Resolve the pins again (requirements/*.txt, functions/*/requirements.txt)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes --extra dev --no-emit-package tollgate \
	  --custom-compile-command "make lock" -o requirements/dev.txt pyproject.toml
	@for name in $(APPS) twin; do \
	  echo "lock: $$name"; \
	  $(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes --extra $$name --no-emit-package tollgate \
	    -c requirements/dev.txt --custom-compile-command "make lock" -o requirements/$$name.txt pyproject.toml; done
	@for app in $(APPS); do cp requirements/$$app.txt functions/$$app/requirements.txt; done

clean: ## Stop this checkout's twin; remove its state, build results and caches (keeps .venv and node_modules)
	@if [ -x $(VENV)/bin/tollgate ] && [ -d .tollgate ]; then $(VENV)/bin/tollgate down; fi
	@rm -rf .tollgate build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	@find . -name __pycache__ -not -path './.venv/*' -not -path '*/node_modules/*' -prune -exec rm -rf {} +
