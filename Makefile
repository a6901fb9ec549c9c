# Everything there is to do with this project. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
STACK := $(BIN)/python -m stack

.PHONY: help setup setup-dev demo up down ps logs restart dashboards example backup restore upgrade test test-stack \
	faults hunt check format bench docs boards lock clean purge

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv/ and install what the package needs

setup-dev: $(STAMP)-dev  ## The same, with what tests and checks need

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed ($$($(PYTHON) --version)): make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv is missing: apt-get install python3-venv (or your system's package of that name)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# A lock file is complete, so pip need not resolve (--no-deps); the build backend is locked with the rest.
$(STAMP): requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV)/ ..."
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP)-dev: requirements-dev.lock $(STAMP)
	@echo "installing what tests need ..."
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

demo: setup  ## Run the example pipeline on a bundled data set; no server needed. ARGS='--fail-at train' shows a failure
	@$(BIN)/python ml_pipeline/examples/logging_monitoring_example.py --drift $(ARGS)

up: setup  ## Start the stack (Prometheus, Alertmanager, Grafana, Loki, a local inbox ...) and say where it is
	@$(STACK) up

down: setup  ## Stop the stack; what it collected stays
	@$(STACK) down

ps: setup  ## Show the stack's services and their health
	@$(STACK) ps

logs: setup  ## Follow what the services say; SERVICE=grafana for one of them
	@$(STACK) logs $(SERVICE)

restart: setup  ## Restart the services, or SERVICE=loki alone, which then read their configuration again
	@$(STACK) restart $(SERVICE)

dashboards: setup  ## Put the boards into Grafana again; ARGS=--dry-run only says what would change
	@$(STACK) dashboards $(ARGS)

example: setup  ## Run the example pipeline on this machine, observed by the stack; ARGS='--fail-at train'
	@$(STACK) example $(ARGS)

backup: setup  ## Save the stack's data to one file below DIR=backups
	@$(STACK) backup $(DIR)

restore: setup  ## Bring a backup back: FILE=backups/stack-....tar; asks first (YES=1 does not)
	@test -n "$(FILE)" || { echo "make restore needs a backup: make restore FILE=backups/stack-....tar"; exit 2; }
	@$(STACK) restore $(FILE) $(if $(filter 1,$(YES)),--yes)

upgrade: setup  ## Back up, then start what the compose file names now: new images are fetched, ours is built
	@$(STACK) upgrade $(DIR)

test: setup-dev  ## Run all tests
	@$(BIN)/python -m pytest $(TESTS) -n 2 --cov --cov-report=term:skip-covered $(ARGS)

test-stack: export STACK_TESTS = 1
test-stack: setup-dev  ## Run the tests that start the stack on a real Docker engine; STACK_IMAGES_ENV names local images
	@$(BIN)/python -m pytest tests/stack/docker -p no:randomly --durations=8 $(ARGS)

faults: setup-dev  ## Run the tests that kill processes, or cut the power, at random moments for 200 rounds each; ROUNDS=1000 for more
	@FAULT_ROUNDS=$(or $(ROUNDS),200) $(BIN)/python -m pytest tests/config tests/test_faults.py -k "kill or power" -p no:randomly --timeout=0 --durations=8 $(ARGS)

hunt: setup-dev  ## Try the properties with ever new examples, until one fails; ROUNDS=20
	@for round in $$(seq $(or $(ROUNDS),20)); do $(BIN)/python -m pytest $(TESTS) -m hypothesis -n 2 -q $(ARGS) || exit; done

check: setup-dev  ## Format, lint, types, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory test

format: setup-dev  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)-bench/.installed  ## Measure what observing costs, beside the same work without it and beside peers
	@$(VENV)-bench/bin/python -m benchmarks $(ARGS)

# An environment of its own: a peer's requirements must not decide ours.
$(VENV)-bench/.installed: requirements-bench.lock
	@$(PYTHON) -m venv $(VENV)-bench
	@echo "installing the peers into $(VENV)-bench/ ..."
	@$(VENV)-bench/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r $<
	@touch $@

docs: setup-dev  ## Write the reference documentation anew from the code
	@$(BIN)/python docs/build_reference.py

COMPILE_FROM := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet
COMPILE := $(COMPILE_FROM) pyproject.toml

boards: setup-dev  ## Write the boards and data sources anew from their source in grafana/
	@$(BIN)/python -m grafana.dashboards
	@$(BIN)/python -m grafana.data_sources

lock: setup-dev  ## Resolve the dependencies anew
	@$(COMPILE) --extra postgres --extra rules --extra tables --extra build -o requirements.lock
	@$(COMPILE) --extra postgres --extra rules -c requirements.lock -o requirements-image.lock
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | $(COMPILE_FROM) - -c requirements.lock -o requirements-build.lock
	@$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock
	@$(COMPILE) --extra bench -o requirements-bench.lock

clean:  ## Remove caches and what was built; keeps logs, data and models
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* benchmarks/results
	@find . -name __pycache__ -not -path './.venv*' -type d -exec rm -rf {} +

purge: clean  ## Remove logs, data, models, the stack's volumes and .venv/ too; asks first (YES=1 does not)
	@[ "$(YES)" = 1 ] || { printf 'remove logs, the audit trail, lineage, alerts, models, the stack with its data, and .venv? [y/N] '; read answer; [ "$$answer" = y ]; }
	@{ [ ! -d .stack ] && ! grep -qs '^STACK_LOG_GROUP=' .env; } || $(STACK) purge
	@[ ! -d ml_pipeline/logs ] || find ml_pipeline/logs -mindepth 1 ! -path ml_pipeline/logs/README.md -delete
	@rm -rf ml_pipeline/data_storage artifacts $(VENV) $(VENV)-bench
