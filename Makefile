# Two commands do everything on a machine with Rust, a C compiler, make, Java 17, Maven, Node, Python and curl:
# `make demo` and `make test`. `make help` lists the rest.
#
# Cargo compiles a dependency again whenever another selection of crates switches on other features of it.
# Wasmtime takes minutes, so what is built here shares one release profile, and tests are always selected
# from the whole workspace (`--workspace`), never by `-p`.

JOBS := click-event-count word-count hostile
WASM := wasm32-wasip2
CARGO ?= cargo
E2E := $(patsubst tests/e2e/tests/%.rs,--test %,$(wildcard tests/e2e/tests/*.rs))

.PHONY: help build jobs target demo test lint unit e2e simulate bench clean

help: # This list.
	@sed -n 's/^\([a-z0-9]*\):[^#]*# \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

build: jobs # The binary, target/release/tidemill, and the jobs, target/jobs/*.wasm.
	$(CARGO) build --release -p tidemill-cli -p tidemill-bench

jobs: target # The jobs only.
	$(CARGO) build --profile job --target $(WASM) $(addprefix -p ,$(JOBS))
	@mkdir -p target/jobs
	@for job in $(JOBS); do \
	  cp -p target/$(WASM)/job/$$(echo $$job | tr - _).wasm target/jobs/$$job.wasm; done

# Rust's standard library for Wasm.
target:
	@rustup target list --installed 2>/dev/null | grep -qx $(WASM) \
	  || [ -d "$$(rustc --print sysroot)/lib/rustlib/$(WASM)" ] \
	  || rustup target add $(WASM)

demo: build # Runs the click-event job on an embedded broker until Ctrl-C.
	target/release/tidemill playground

test: lint build # Everything that CI runs.
	$(CARGO) test --release --workspace

lint: # Formatting, clippy, documentation.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) doc --release --workspace --no-deps --quiet

unit: build # Unit and integration tests of all crates, and the examples in their documentation.
	$(CARGO) test --release --workspace --exclude tidemill-e2e

e2e: build # Real processes, a real Kafka, SIGKILL.
	$(CARGO) test --release --workspace $(E2E)

simulate: # The checkpoint protocol under seeded faults: SEEDS=N FROM=S.
	SIMULATION_SEEDS=$(or $(SEEDS),20000) SIMULATION_FROM=$(or $(FROM),0) \
	  $(CARGO) test --release --workspace --test simulation

bench: build # Measures; prints tables in Markdown.
	target/release/tidemill-bench

clean: # Removes target/.
	$(CARGO) clean
