# evertoken. `make help` lists what there is.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
SECONDS ?= 3600
OPTIONS ?= --write

.PHONY: help run test check test-clients hostile soak bench bench-check bench-record install clean

help: ## print this
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 16

run: ## run with ./providers.yaml, or against the sandbox where there is none
	@if [ -f providers.yaml ]; then \
	    $(CARGO) build --release --locked --bin evertoken && exec target/release/evertoken run; \
	else \
	    $(CARGO) build --release --locked --workspace --bins && \
	    exec target/release/sandbox demo --evertoken target/release/evertoken; \
	fi

test: ## all tests that need nothing but Rust
	$(CARGO) test --workspace --locked

check: ## formatting, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

test-clients: ## the built binary under real SDKs and a real issuer (needs python3 and node)
	$(CARGO) build --release --locked --workspace --bins
	tests/clients/run drive.py

hostile: ## floods, disks, clocks and browsers (needs root, strace, faketime, chromium)
	$(CARGO) test --release --locked --features slow-tests --test it -- --test-threads=1 slow::

soak: ## an hour of traffic, faults and kills (SECONDS=3600), then a report
	$(CARGO) build --release --locked --workspace --bins
	tests/clients/run soak.py $(SECONDS)

bench: ## evertoken beside nginx, HAProxy and Envoy (OPTIONS=--short for a quick look), into docs/performance.md
	$(CARGO) build --release --locked --workspace --bins
	target/release/bench $(OPTIONS)

bench-check: ## instructions of the hot path against bench/instructions.txt (needs valgrind)
	$(CARGO) build --release --locked --package bench
	target/release/bench check

bench-record: ## records the instructions of the hot path
	$(CARGO) build --release --locked --package bench
	target/release/bench check --record

install: ## install the binary under $(DESTDIR)$(PREFIX)
	$(CARGO) build --release --locked --bin evertoken
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/evertoken
	install -m 755 target/release/evertoken $(DESTDIR)$(PREFIX)/bin/evertoken
	install -m 644 providers.yaml.example $(DESTDIR)$(PREFIX)/share/evertoken/providers.yaml.example

clean: ## remove what was built
	$(CARGO) clean
