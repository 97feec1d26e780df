# Every target sets up what it needs by itself. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the installed environment and the built extension are made of: they are renewed when one of these changes.
RUST := Cargo.toml Cargo.lock clippy.toml $(shell find rust -name '*.rs' -o -name Cargo.toml | grep -v '^rust/fuzz/')

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -t -s $$'\t'

# --- set-up -----------------------------------------------------------------------------------------------------------

$(VENV)/uv:
	$(PYTHON) -c 'import sys; sys.exit("rsprune needs Python 3.10 or newer") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv maturin==1.16.0
	@touch $@

$(VENV)/demo: $(VENV)/uv pyproject.toml
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -r pyproject.toml --extra demo
	@touch $@

$(VENV)/dev: $(VENV)/demo
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -r pyproject.toml --extra train --group test --group lint
	@touch $@

$(VENV)/extension: $(VENV)/uv pyproject.toml $(RUST)
	VIRTUAL_ENV=$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" maturin develop --release --uv --quiet
	@touch $@

# What tests read from buckets; unoptimized, it is built in half the time.
$(BIN)/s3s-fs: | $(VENV)/uv
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --no-track --root $(VENV) --features binary s3s-fs@0.14.1

.PHONY: build
build: $(VENV)/extension ## Build the release extension and install the package, editable

.PHONY: dev
dev: $(VENV)/dev $(BIN)/s3s-fs build ## Set up everything that development needs

.PHONY: demo
demo: $(VENV)/demo build ## Prune a real collection with a real encoder, and say where the results are
	$(BIN)/rsprune demo --out demo

# --- checks -----------------------------------------------------------------------------------------------------------

.PHONY: test
test: lint test-rust test-python ## Everything that CI runs

.PHONY: lint
lint: dev ## clippy, rustfmt, ruff, mypy, and the stub against the built module
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest rsprune._core

.PHONY: test-rust
test-rust: ## Tests of the Rust core
	cargo test --workspace --quiet

.PHONY: test-python
test-python: dev ## Tests of the package, a file at a time on each of two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: test-slow
test-slow: dev ## The tests that take minutes
	$(BIN)/python -m pytest -m slow --ignore tests/browser

$(VENV)/browser: $(VENV)/dev
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --group browser
	@touch $@

.PHONY: test-browser
test-browser: $(VENV)/browser build ## The pages in a browser: needs chromium (apt-get install chromium)
	$(BIN)/python -m pytest -m slow tests/browser

.PHONY: test-faults
test-faults: dev ## Everything that is made to break a guarantee, in its long forms, too
	$(BIN)/python -m pytest -m "slow or not slow" tests/faults

FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: dev ## Fuzz everything that reads files from elsewhere, each for FUZZ_SECONDS; installs cargo-fuzz
	$(BIN)/python -W ignore tests/fuzzing.py --seconds $(FUZZ_SECONDS)
	cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
	mkdir -p rust/fuzz/corpus/{decode_image,gray_levels,open_npy}
	# The sanitizer is a flag of the nightly compiler, which the stable one takes when told so.
	export RUSTC_BOOTSTRAP=1; set -e; for target in decode_image gray_levels open_npy; do \
		cargo fuzz run --fuzz-dir rust/fuzz $$target rust/fuzz/{corpus,seeds}/$$target \
			-- -max_total_time=$(FUZZ_SECONDS); \
	done

$(VENV)/bench: $(VENV)/dev
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --group bench
	@touch $@

BENCH ?=
.PHONY: bench
bench: $(VENV)/bench build ## Compare with other libraries and record it. BENCH="disk --rounds 1": that alone, with these options
	$(BIN)/python -m benches --record $(BENCH)

.PHONY: bench-gpu
bench-gpu: $(VENV)/bench build ## The same on a GPU: rows against torch, embedding and training against the bare network
	@$(BIN)/python -m benches.gpu
	$(BIN)/python -m benches --record gpu embed-gpu dit-gpu

.PHONY: experiments-gpu
experiments-gpu: dev ## Tables 1 and 3 of the paper on a GPU, with the images in RSPRUNE_DATA (docs/experiments.md)
	$(BIN)/rsprune experiment table1 --scale gpu
	$(BIN)/rsprune experiment table3 --scale gpu

COUNTS ?=
.PHONY: counts
counts: ## Count the instructions of the hot kernels, and compare with the baseline. COUNTS=--bless: make it the baseline
	cargo bench --quiet -p rsprune-core --bench instructions -- $(COUNTS)

.PHONY: format
format: dev ## Format Rust and Python
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf $(VENV) target demo
