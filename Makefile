# make            lists the targets
# Everything is built with one Cargo profile, --release: the C++ bindings to libtorch take minutes,
# and this way they are compiled once for building, testing, linting and the demo.

CARGO  ?= cargo
PYTHON ?= python3
DEMO   := demo
PARITY := parity
BIN    := $(or $(CARGO_TARGET_DIR),target)/release

# Tests run side by side, one a core; each computes on one thread, or they would wait for each other.
TEST_ENV := OMP_NUM_THREADS=1 RAYON_NUM_THREADS=2
# Flags for building tests. CI has the library compiled with less optimisation: it compiles longest, twice over,
# and tests need no speed. It changes the program in target/release too, so it is not the default.
TEST_OPT ?=

.PHONY: help build demo test report-shots test-matrix own-crate lint bench golden parity libtorch libtorch-cuda python rust

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: build ## Draws a long-tailed set, trains on it, evaluates, writes a report (8 minutes on 2 cores)
	@scripts/demo.sh $(BIN)/richsem $(DEMO)

test: rust libtorch ## Runs all tests
	$(TEST_ENV) $(CARGO) test --release --workspace $(TEST_OPT)

report-shots: rust libtorch ## Looks at reports in a headless browser (Debian's package chromium)
	$(TEST_ENV) $(CARGO) test --release --workspace --test report_shots $(TEST_OPT) -- --ignored

test-matrix: rust libtorch ## Runs the numeric tests under other instruction sets and numbers of threads
	@CARGO="$(CARGO)" TEST_OPT="$(TEST_OPT)" scripts/test_matrix.sh

own-crate: rust libtorch ## Builds and runs examples/own-crate, a program outside of the workspace
	$(CARGO) build --release --workspace $(TEST_OPT)
	@CARGO="$(CARGO)" TEST_OPT="$(TEST_OPT)" scripts/own_crate.sh

# The doc comments of richsem-cli are its help texts, not pages.
lint: rust libtorch ## Checks formatting, lints (clippy) and documentation, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --no-deps --workspace --exclude richsem-cli

bench: build ## Measures what this machine can, beside PyTorch where PYTHON has it (benches/README.md)
	PYTHON="$(PYTHON)" CARGO="$(CARGO)" benches/local.sh $(BIN)/richsem

golden: ## Writes the golden files anew: make golden REFERENCE=checkout of the official code
	@test -n "$(REFERENCE)" || { echo "usage: make golden REFERENCE=CHECKOUT (reference/README.md)" >&2; exit 1; }
	cd reference && $(PYTHON) -m golden $(abspath $(REFERENCE))

parity: build ## Compares whole models: make parity REFERENCE=checkout PHOTOS="a.jpg b.jpg c.jpg"
	@test -n "$(REFERENCE)" -a -n "$(PHOTOS)" || { \
		echo "usage: make parity REFERENCE=CHECKOUT PHOTOS='A B C' (reference/README.md)" >&2; exit 1; }
	PYTHON="$(PYTHON)" CARGO="$(CARGO)" scripts/parity.sh $(BIN)/richsem $(REFERENCE) $(PARITY) $(PHOTOS)

build: rust libtorch ## Builds the richsem command into target/release
	$(CARGO) build --release --workspace

libtorch: python ## Fetches libtorch 2.11.0 into .libtorch/ (0.6 GB), unless it is there or LIBTORCH is set
	@$(PYTHON) scripts/libtorch.py cpu

libtorch-cuda: python ## Adds what an NVIDIA GPU needs (2.5 GB)
	@$(PYTHON) scripts/libtorch.py cuda

python:
	@command -v $(PYTHON) > /dev/null || { \
		echo "error: $(PYTHON) is missing; it fetches libtorch" >&2; \
		echo "  hint: sudo apt-get install python3 python3-pip" >&2; exit 1; }

# A Cargo that is too old to read Cargo.lock says that, and not which one is needed.
rust:
	@needed=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); \
	found=$$($(CARGO) --version 2> /dev/null | cut -d' ' -f2); \
	test "$$(printf '%s\n' "$$needed" "$$found" | sort -V | head -1)" = "$$needed" || { \
		echo "error: Rust $$needed or newer is needed; $(CARGO) is $${found:-missing}" >&2; \
		echo "  hint: https://rustup.rs, or, where rustup is: rustup update" >&2; exit 1; }
