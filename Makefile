# Everything a person or CI does with a checkout; `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The suites measure nothing but still want the machine to themselves, also under `make -j`.
.NOTPARALLEL:

# Tried in this order; requirements.lock was made with the first.
PYTHON ?= python3.11 python3.12 python3.13 python3
BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# Processes that share the quick tests. Those of a file stay together: they may share a Ray.
WORKERS ?= 2

# Otherwise pyright asks the network at each run whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help setup demo format check test test-system services soak soak-cluster cluster-services bench

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv with everything in it; does nothing when it is there

demo: $(READY) ## watch a program learn a small game
	@$(BIN)/tamen demo

format: $(READY) ## lay out the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(READY) ## layout, lint, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: $(READY) ## the tests: minutes, no services, no accelerator
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not system and not soak" --session-timeout=900

test-system: $(READY) services ## the tests that run whole programs
	$(PYTEST) -m system --session-timeout=1200 || [ $$? -eq 5 ] # 5: there is none of them

services: # what the tests of whole programs start, each on loopback or behind a pipe, and stop
	@export PATH="$$PATH:/usr/games"; \
	if ! command -v redis-server faketime javac gnugo stockfish | awk 'END {exit NR < 5}'; then \
	  echo "installing redis-server, faketime, a JDK, gnugo and stockfish"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	    redis-server faketime default-jdk-headless gnugo stockfish >/dev/null; \
	fi

soak: $(READY) ## the tests that run for many minutes
	$(PYTEST) -m soak --ignore=tests/cluster_soak || [ $$? -eq 5 ]

soak-cluster: $(READY) cluster-services ## those of clusters: hosts in namespaces, a cloud of this machine; as root
	$(PYTEST) -m soak tests/cluster_soak || [ $$? -eq 5 ]

cluster-services: # what those start on addresses of their own; nothing is left running by the installation
	@export PATH="$$PATH:/usr/sbin:/sbin"; \
	if ! command -v prometheus chromium sshd rsync ip tmux | awk 'END {exit NR < 6}'; then \
	  echo "installing prometheus, chromium, openssh-server, rsync, iproute2 and tmux"; \
	  if [ ! -e /usr/sbin/policy-rc.d ]; then \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	    install -m 755 <(printf '#!/bin/sh\nexit 101\n') /usr/sbin/policy-rc.d; \
	  fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    prometheus chromium openssh-server rsync iproute2 tmux >/dev/null; \
	fi

bench: $(READY) ## measure what the README claims
	$(BIN)/tamen bench inference
	$(BIN)/tamen bench selfplay
	$(BIN)/tamen bench search
	$(BIN)/tamen bench phases

$(READY): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing what requirements.lock names (minutes the first time)"
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@if [ -f cluster/warm.py ]; then $(BIN)/python -m cluster.warm; fi
	@touch $@

$(BIN)/python:
	@for name in $(PYTHON); do \
	  if "$$name" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making .venv with $$name"; exec "$$name" -m venv --clear .venv; \
	  fi; \
	done; \
	echo "tamen was not set up: there is no Python it can use" >&2; \
	echo "  why: it needs Python 3.11 or newer with the venv module; tried $(PYTHON)" >&2; \
	echo "  do:  apt-get install python3 python3-venv (on Debian), or make setup PYTHON=/path/to/python" >&2; \
	exit 1
