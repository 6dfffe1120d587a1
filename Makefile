# Entry points. Each target is a line; what needs more is a script.
# Everything is built by the calling user; only the lab itself runs as root.

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=SLUICE_ACCEL,SLUICE_IMAGE,SLUICE_KEEP)
LAB := $(SUDO) target/debug/sluice-lab
BENCH := $(SUDO) target/image/sluice-bench

.PHONY: help deps image guest build run test lab-test check model gate coverage fuzz figures bench bench-quick bench-build clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

deps: ## install what is missing: Debian packages, Rust, Python packages
	@tests/deps.sh

image: deps ## build the appliance's image
	@image/build.sh

guest: deps ## unpack what Linux guests of the lab are made of
	@tests/guest.sh

build: image guest ## build the image, shim, nvectl and the lab
	@cargo build

run: build ## start a lab of two hypervisors, show who reaches whom, stay until Ctrl-C
	@$(LAB) run

test: deps ## run every test: check, cargo test, and the end-to-end tests in the lab
	@tests/all.sh

lab-test: build ## run the end-to-end tests only, or those named: make lab-test FILTER=headless
	@$(LAB) test $(FILTER)

check: deps ## check format and lints
	@cargo fmt --all --check && cargo clippy --all-targets -- -D warnings && image/build.sh clippy

model: deps ## hold the datapath against its reference model: 1,000,000 cases
	@cargo test --profile model -p nve-datapath --test model -- --ignored --nocapture

gate: deps ## count the instructions that a packet takes, and compare
	@cargo build --profile image -p sluice-bench --bin sluice-gate && target/image/sluice-gate check

coverage: deps ## measure how much of the datapath its tests run
	@tests/coverage.sh

fuzz: ## feed the fuzz targets for FUZZ_SECONDS (60) each; needs nightly and cargo-fuzz
	@tests/fuzz/run.sh

figures: image ## measure size, memory, idle load and synchronization
	@cargo build --release -p shim -p sluice-lab && $(SUDO) target/release/sluice-lab figures

bench: bench-build image ## measure us beside OVS-DPDK, testpmd and a Linux guest; docs/bench
	@$(BENCH) run --out docs/bench && $(BENCH) rfc2544 --out docs/bench && \
		$(BENCH) updates --out docs/bench && $(BENCH) booted --out docs/bench

bench-quick: bench-build ## the same in three minutes, without a report
	@$(BENCH) run --quick

bench-build: deps
	@tests/bench/deps.sh && cargo build --profile image -p nve-hosted -p sluice-bench

clean: ## remove what was built, and the tests' Python packages
	@rm -rf target .venv
