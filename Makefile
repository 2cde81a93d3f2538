# `make demo` and `make test` are all a newcomer needs; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help demo run build test agents cgroups sim chaos bench bench-growth soak instructions build-bench lint fmt deny fuzz observability-check jaeger-check ci nats-server need-rust need-python

RELEASE := $(or $(CARGO_TARGET_DIR),target)/release/conductor

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build nats-server ## Start the system on free ports, run a sample, replay it, stop everything
	@echo "==> running the sample"
	@$(RELEASE) demo

run: build nats-server ## Start the system and stay up until Ctrl-C (data in ~/.conductor)
	@echo "==> starting conductor; Ctrl-C drains and stops it"
	@$(RELEASE) up

# What is built for release. CI names all that its steps build each time: another set of packages
# means other features of what they share, and so everything anew.
RELEASE_PACKAGES ?=
packages = $(addprefix --package ,$(sort $(1) $(RELEASE_PACKAGES)))

build: need-rust
	@echo "==> building the release binary (a few minutes the first time)"
	@cargo build --release --locked $(call packages,conductor)

test: need-rust nats-server ## Run all tests, against a real nats-server each
	@echo "==> running all tests"
	@cargo test --workspace --locked
	@echo "==> planted bugs: each must be found by the simulation"
	@cargo test --locked --package conductor-simulation --features planted-bugs --test planted

agents: need-rust nats-server ## Twenty real Claude Code CLIs at once, one killed at work, two that seek each other (needs npm, bubblewrap)
	@cargo test --locked --package conductor --test e2e -- --nocapture --test-threads 1 crowd:: real:: meeting::

cgroups: need-rust nats-server ## Tests of limits by control groups, in a virtual machine (needs Debian's qemu; a few minutes)
	@bash tests/cgroups/run.sh

SEEDS ?= 10000
sim: need-rust ## Simulate the whole system under faults (SEEDS=10000, or SEED=… for one with its story)
	@echo "==> building"
	@cargo build --release --locked $(call packages,conductor-simulation)
	@echo "==> simulating"
	@$(dir $(RELEASE))conductor-simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --coverage)

MINUTES ?= 10
chaos: need-rust nats-server ## Real faults on real processes (MINUTES=10, SEED=… to choose them again)
	@echo "==> building"
	@cargo build --release --locked $(call packages,conductor conductor-chaos)
	@echo "==> $(MINUTES) minutes of faults"
	@$(dir $(RELEASE))conductor-chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --report $(dir $(RELEASE))chaos

BENCH = $(dir $(RELEASE))conductor-loadtest
bench: build-bench ## Measure the standard set; writes loadtest/RESULTS.md (BENCH_ARGS=--quick to try)
	@$(BENCH) bench $(BENCH_ARGS)

bench-growth: build-bench ## Measure how costs grow with backlog, agents, payload, history
	@$(BENCH) growth $(BENCH_ARGS)

soak: build-bench ## Ten minutes at a fixed rate (after four million tasks): does memory stay what it is?
	@$(BENCH) soak $(BENCH_ARGS)

instructions: build-bench ## Instructions that the rules take for a task (valgrind); more than kept is an error
	@$(BENCH) instructions

build-bench: need-rust nats-server
	@echo "==> building"
	@cargo build --release --locked $(call packages,conductor conductor-loadtest)

lint: need-rust ## Formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo clippy --package conductor-simulation --features planted-bugs --all-targets --locked -- --deny warnings

fmt: need-rust ## Format the code
	cargo fmt --all

deny: need-rust ## Licences, banned and doubled dependencies (cargo-deny, offline parts)
	cargo deny --locked check bans licenses sources

fuzz: need-rust ## Fuzz decoding and folding for a minute (needs cargo-fuzz and a nightly compiler)
	cargo fuzz run --fuzz-dir tests/fuzz fold -- -max_total_time=60

observability-check: ## Whether Prometheus understands rules and dashboards (needs promtool)
	@bash nats/observability/check.sh

jaeger-check: build nats-server ## Run the demo against a real Jaeger and ask it for each task's trace (needs Go)
	@python3 tests/jaeger/check.py $(RELEASE)

ci: ## What runs on every change
	bash .ci/run

nats-server: need-python ## Get the pinned nats-server where none new enough is on PATH
	@python3 nats/install.py

need-rust:
	@command -v cargo >/dev/null || { \
	  echo "cargo is missing: install Rust with rustup (Debian 13, Ubuntu: apt-get install rustup), then try again"; exit 1; }
	@command -v cc >/dev/null || { \
	  echo "a C compiler is missing: install gcc or clang (Debian: apt-get install build-essential), then try again"; exit 1; }

need-python:
	@command -v python3 >/dev/null || { \
	  echo "python3 is missing: install it (Debian: apt-get install python3 python3-pip), then try again"; exit 1; }
