# `make` alone lists what there is to do.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# cargo works in parallel itself, and its stages wait for each other.
.NOTPARALLEL:

CARGO ?= cargo
# Arguments of single tests or of the demonstration: make unit ARGS='-p berth-core', make demo ARGS=--exit-when-ready
ARGS ?=

export CARGO_TERM_COLOR ?= $(if $(filter dumb,$(TERM)),never,auto)

# Says what runs, and how long it took.
run = @scripts/stage.sh '$@'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show a whole Berth on this machine, from nothing to three servers that answer (no root; Ctrl-C ends it)
	@# The profile of the tests: its first build is much faster than the release's.
	@$(CARGO) build --workspace --bins
	@target/debug/berth-demo $(ARGS)

.PHONY: test
test: packages fmt lint deny typos generated pure docs tests ## Everything that must hold: checks, lints, and all tests

.PHONY: packages
packages: ## Install the Debian packages that the tests need (nothing, when they are there)
	$(run) scripts/packages.sh

.PHONY: fmt
fmt: ## Formatting is as rustfmt writes it (`cargo fmt --all` mends it)
	$(run) $(CARGO) fmt --all --check

.PHONY: lint
lint: ## clippy, pedantic, on everything; a warning is an error
	$(run) $(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: deny
deny: ## Licences, bans, sources; advisories where the network allows (it says which ran)
	$(run) scripts/deny.sh

.PHONY: typos
typos: ## Spelling
	$(run) bash -c '"$$(scripts/tools.sh typos)"'

.PHONY: crds
crds: ## Write the generated files anew: deploy/crds and docs/api.md
	$(run) $(CARGO) xtask generate

.PHONY: generated
generated: ## The generated files are what the types say
	$(run) $(CARGO) xtask generate --check

.PHONY: pure
pure: ## The pure crate builds alone, and drags in no client and no runtime
	$(run) scripts/pure.sh

.PHONY: docs
docs: ## The documentation builds; a warning is an error
	$(run) env RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --workspace --no-deps

# Programs and tests in one go: by themselves, the programs would be built a second time with fewer features.
.PHONY: build
build:
	$(run) $(CARGO) build --workspace --all-targets

.PHONY: tests
tests: build ## All tests
	$(run) $(CARGO) test --workspace $(ARGS)

.PHONY: unit
unit: ## The tests of the parts (all but those of a whole Berth)
	@$(CARGO) build --quiet --package local-machine
	$(run) $(CARGO) test --workspace --exclude berth-tests $(ARGS)

.PHONY: system
system: ## The tests of a whole Berth: real control plane, real processes, real SSH
	@$(CARGO) build --quiet --workspace --bins
	$(run) $(CARGO) test --package berth-tests $(ARGS)

.PHONY: mutants
mutants: ## Mutation testing of the life cycle and the protocol (hours; not part of `make test`)
	$(run) scripts/mutants.sh $(ARGS)

.PHONY: bench
bench: ## Measure: figure, reference in the same run, ratio, target
	$(run) scripts/bench.sh
