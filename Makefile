.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# docker, netns, or nothing: every runtime that answers on this machine
RUNTIME ?=
# Unit tests wait more than they work; a file stays in one process.
PARALLEL := -n 2 --dist loadfile

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: requirements/build.txt requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt 2>&1 | { grep -v '^WARNING: Location' || true; }
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . 2>&1 | { grep -v '^WARNING: Location' || true; }
	@touch $@

venv: .venv/.ready ## make .venv with everything, firstbyte included

# One list of programs and their Debian packages: tests/judges.py.  Root on Debian or Ubuntu gets what is missing.
judges: venv ## install the programs that judge the lab in tests (root on Debian or Ubuntu), or say what is missing
	@$(BIN)/python -m tests.judges

runtime: venv
	@$(BIN)/python -m tests.judges ip tini

up: venv runtime ## start the lab and wait until it is healthy
	$(BIN)/firstbyte up

down: venv ## remove everything that up made, volumes too
	$(BIN)/firstbyte down

demo: venv runtime ## boot, trace, two scenarios, one drill, a table of costs and a report; leaves the lab up
	$(BIN)/python -m firstbyte.demo

lint: venv ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dns pki services loadtest lab bench tests
	$(BIN)/lint-imports --no-cache

test: venv judges ## the whole suite: units, then the lab in every runtime that answers (RUNTIME=docker|netns: in that one)
	$(BIN)/pytest -m "not system" $(PARALLEL)
	$(BIN)/python -m tests.system $(RUNTIME)

unit: venv ## the tests that need no lab
	$(BIN)/pytest -m "not system" $(PARALLEL)

bench: venv ## compare with independent peers (minutes; an idle machine)
	$(BIN)/python bench

# Any seed that is not the gate's: what it finds is a bug to fix, not a reason to stop the build.
free-seed: venv ## property tests on new inputs, with a seed that the output names
	@seed=$${SEED:-$$RANDOM}; echo "hypothesis seed $$seed: repeat with \`make free-seed SEED=$$seed\`"; \
	HYPOTHESIS_PROFILE=free $(BIN)/pytest -m "hypothesis and not system" $(PARALLEL) --hypothesis-seed=$$seed

fuzz: venv ## parsers on ten thousand inputs each (hours)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -m "hypothesis and not system"

experiments: venv ## every scenario and drill, quickly, then every control (a quarter of an hour; the lab has to be up)
	$(BIN)/firstbyte run all --quick
	$(BIN)/firstbyte drill all --quick
	@for verb in run drill; do $(BIN)/firstbyte $$verb all --quick --control; [ $$? -eq 1 ] || { echo "$$verb: a control did not fail as it should" >&2; exit 1; }; done

lock: venv ## compile requirements/*.txt anew (hashes, no URLs)
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 pyproject.toml -o requirements/base.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --extra load --extra plan --extra quic pyproject.toml -o requirements/load.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --group dev requirements/dev.in pyproject.toml -o requirements/dev.txt

.PHONY: help venv judges runtime up down demo lint test unit experiments bench free-seed fuzz lock
