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
# Pulumi has an environment of its own, see the extra `infra` in pyproject.toml.
INFRA_VENV := .venv-infra
INFRA_PY := $(INFRA_VENV)/bin/python
INFRA_STAMP := $(INFRA_VENV)/.setup-stamp
INFRA_NODE := infra/node/node_modules/.setup-stamp
PROMETHEUS := build/prometheus/.setup-stamp
PYTEST_ARGS ?=
# Most tests wait for real servers more than they compute; more processes than this make two cores late.
TEST_PROCESSES ?= 2
CHAOS_SEEDS ?= 20

.PHONY: help setup demo test check bench chaos outages clean lock format twin-setup infra-setup

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(TWIN_NODE) $(TESTS_NODE) infra-setup $(PROMETHEUS) ## Install everything into .venv, .venv-infra and node_modules (no root needed)
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

# Without it everything but the tests of monitoring works, so a machine that cannot have it is set up all the same.
$(PROMETHEUS): | $(STAMP)
	@echo "setup: unpacking Prometheus, which the tests of monitoring run"
	@if $(PY) -m twin.services.prometheus; then mkdir -p $(@D) && touch $@; fi

twin-setup: $(STAMP) $(TWIN_NODE)

infra-setup: $(INFRA_STAMP) $(INFRA_NODE)

$(INFRA_STAMP): $(STAMP) requirements/infra.txt $(wildcard infra/stubs/pulumi_azure_native-stubs/*)
	@echo "setup: installing Pulumi into $(INFRA_VENV) (about half a minute on a cold cache)"
	@test -x $(INFRA_PY) || $(PY) -m venv --without-pip $(INFRA_VENV)
	@$(UV) pip sync --quiet --python $(INFRA_PY) --require-hashes requirements/infra.txt
	@$(UV) pip install --quiet --python $(INFRA_PY) --no-deps --no-build-isolation --editable .
	@cp -R infra/stubs/pulumi_azure_native-stubs "$$($(INFRA_PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@

$(INFRA_NODE): infra/node/package-lock.json
	@echo "setup: installing the linters of queries and workflows"
	@cd infra/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

demo: twin-setup ## Play a small bank on a fresh twin: history, model, live days, labels, verification (DATA=FILE for real data)
	@DATA="$(DATA)" $(PY) -m twin.demo

test: setup ## Run all tests on real servers
	@$(PY) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)
	@$(INFRA_PY) -m pytest --confcutdir tests/infra --numprocesses $(TEST_PROCESSES) tests/infra infra/naming.py

check: setup ## Format, lint, types, imports, locks
	@echo "check: format"; $(VENV)/bin/ruff format --check --quiet .
	@echo "check: lint"; $(VENV)/bin/ruff check --quiet .
	@echo "check: types"; $(VENV)/bin/mypy
	@echo "check: types of infra"; $(INFRA_VENV)/bin/mypy --cache-dir .mypy_cache/infra \
	  $$(find infra tests/infra -name '*.py' -not -path '*/node_modules/*')
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
	@$(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes --extra infra --no-emit-package tollgate \
	  --custom-compile-command "make lock" -o requirements/infra.txt pyproject.toml
	@for name in $(APPS) twin; do \
	  echo "lock: $$name"; \
	  $(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes --extra $$name --no-emit-package tollgate \
	    -c requirements/dev.txt --custom-compile-command "make lock" -o requirements/$$name.txt pyproject.toml; done
	@for app in $(APPS); do cp requirements/$$app.txt functions/$$app/requirements.txt; done

chaos: setup ## Kill writers and the database under load, seed after seed (CHAOS_SEEDS, default 20; about 10 min)
	@$(PY) -m tests.chaos --seeds $(CHAOS_SEEDS)

outages: setup ## Take away each thing that ingest depends on for minutes, under traffic (about 15 min)
	@$(PY) -m tests.outages

clean: ## Stop this checkout's twin; remove its state, build results and caches (keeps .venv and node_modules)
	@if [ -x $(VENV)/bin/tollgate ] && [ -d .tollgate ]; then $(VENV)/bin/tollgate down; fi
	@rm -rf .tollgate build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	@find . -name __pycache__ -not -path './.venv*' -not -path '*/node_modules/*' -prune -exec rm -rf {} +
