# `make` without a target lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# cargo runs in parallel itself, and parallel invocations of cargo wait for each other.
.NOTPARALLEL:

CARGO ?= cargo
# Arguments for tests or for the demonstration: make unit ARGS='-p berth-core', make demo ARGS=--exit-when-ready
ARGS ?=

export CARGO_TERM_COLOR ?= $(if $(filter dumb,$(TERM)),never,auto)

# Prints the name of a stage and its duration.
run = @scripts/stage.sh '$@'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show a whole Berth on this machine: three servers, new code in steps, a bad version, a dead machine (no root; Ctrl-C ends it)
	@# The dev profile, because its first build is much faster than a release build.
	@$(CARGO) build --workspace --bins
	@target/debug/berth-demo $(ARGS)

# How long `make fresh-runs` plays runs that nobody has played before: make fresh-runs SIM_SECONDS=60
SIM_SECONDS ?= 300

.PHONY: test
test: packages fmt lint deny typos generated circles pure docs tests bench-smoke ## What CI runs: checks, lints, all tests and a smoke test of the benches

.PHONY: packages
packages: ## Install the Debian packages that the tests need, unless they are installed
	$(run) scripts/packages.sh

.PHONY: fmt
fmt: ## Check formatting (`cargo fmt --all` repairs it)
	$(run) $(CARGO) fmt --all --check

.PHONY: lint
lint: ## Run clippy with pedantic lints on everything; a warning is an error
	$(run) $(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: deny
deny: ## Check licences, bans and sources; advisories where the network allows (it prints what was checked)
	$(run) scripts/deny.sh

.PHONY: typos
typos: ## Check spelling
	$(run) bash -c '"$$(scripts/tools.sh typos)"'

.PHONY: crds
crds: ## Generate deploy/crds and docs/api.md
	$(run) $(CARGO) xtask generate

.PHONY: generated
generated: ## Check that CRDs, API reference and list of metrics match the sources
	$(run) $(CARGO) xtask generate --check

.PHONY: circles
circles: ## Check that no files of a crate import each other in a circle
	$(run) $(CARGO) xtask circles

.PHONY: pure
pure: ## Check that the pure crate builds alone, without client and runtime
	$(run) scripts/pure.sh

.PHONY: docs
docs: ## Build the documentation; a warning is an error
	$(run) env RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --workspace --no-deps

# Builds programs and tests together; alone, the programs would be built a second time with fewer features.
.PHONY: build
build:
	$(run) $(CARGO) build --workspace --all-targets

.PHONY: tests
tests: build ## Run all tests
	$(run) $(CARGO) test --workspace $(ARGS)

# In the profile of the tests, which is built already. It prints the seeds; a failure with its schedule and its log is in target/sim.
# Not part of `make test`: too many new runs still find what no change has broken (docs/simulation.md has the rate).
.PHONY: fresh-runs
fresh-runs: build ## Play new runs in the simulated world for five minutes (SIM_SECONDS=0: none)
ifeq ($(SIM_SECONDS),0)
	@echo '== fresh-runs: left out, because SIM_SECONDS is 0'
else
	$(run) $(CARGO) run --quiet --package berth-sim -- run --seconds $(SIM_SECONDS)
endif

# In the profile of the tests, which is built already.
.PHONY: bench-smoke
bench-smoke: build ## Run each bench once with tiny sizes, so that none breaks unseen; targets do not count
	$(run) scripts/bench_smoke.sh

.PHONY: unit
unit: ## Run the tests of single crates (all but those of a whole Berth)
	@$(CARGO) build --quiet --package local-machine
	$(run) $(CARGO) test --workspace --exclude berth-tests $(ARGS)

.PHONY: system
system: ## Run the tests of a whole Berth: real control plane, real processes, real SSH
	@$(CARGO) build --quiet --workspace --bins
	$(run) $(CARGO) test --package berth-tests $(ARGS)

.PHONY: sim
sim: ## Play Berth in the simulated world: make sim ARGS='--seconds 600' (docs/simulation.md)
	@$(CARGO) run --quiet --profile sim --package berth-sim -- run $(ARGS)

.PHONY: mends
mends: ## Take mends out of the programs: the simulated world has to notice each (half an hour): make mends ARGS='NAME'
	@$(CARGO) xtask mends $(ARGS)

.PHONY: mutants
mutants: ## Run mutation tests of the life cycle and the protocol (hours; not part of `make test`)
	$(run) scripts/mutants.sh $(ARGS)

.PHONY: bench
bench: ## Run the benches: figure, reference in the same run, ratio, target
	$(run) scripts/bench.sh
