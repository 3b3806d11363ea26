# `make demo` and `make test` do everything on a machine with Rust, Java, Maven, Node and Python.
# One release profile serves the binary and all tests, so that Wasmtime is compiled once.

JOBS := click-event-count word-count hostile
WASM := wasm32-wasip2
CARGO ?= cargo

.PHONY: build jobs demo test lint unit e2e bench clean target

build: jobs
	$(CARGO) build --release -p tidemill-cli

# Jobs, as target/jobs/<name>.wasm.
jobs: target
	$(CARGO) build --profile job --target $(WASM) $(addprefix -p ,$(JOBS))
	@mkdir -p target/jobs
	@for job in $(JOBS); do \
	  cp -p target/$(WASM)/job/$$(echo $$job | tr - _).wasm target/jobs/$$job.wasm; done

target:
	@rustup target list --installed 2>/dev/null | grep -qx $(WASM) \
	  || [ -d "$$(rustc --print sysroot)/lib/rustlib/$(WASM)" ] \
	  || rustup target add $(WASM)

demo: build
	target/release/tidemill playground

test: lint unit e2e

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

# Unit and integration tests of all crates, documentation examples included.
unit: build
	$(CARGO) test --release --workspace --exclude tidemill-e2e

# Real processes, a real Kafka, SIGKILL.
e2e: build
	$(CARGO) test --release -p tidemill-e2e

bench: build
	$(CARGO) run --release -p tidemill-bench

clean:
	$(CARGO) clean
