# evertoken. `make help` lists the targets.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
SECONDS ?= 3600
ROUNDS ?= 3
# Of `make release-check`.
REPEATS ?= 20
FUZZ_SECONDS ?= 600
OPTIONS ?= --write
# The program for `make install`; target/static/evertoken after `make static`.
BINARY ?= target/release/evertoken
# Files below target/ are named here and in the tests.
unexport CARGO_TARGET_DIR
SOURCES := $(shell find src manual/src -name '*.rs') build.rs contrib/usual.order Cargo.toml Cargo.lock manual/Cargo.toml providers.yaml.example

.PHONY: help run build static dist dist-check test check portable deny others test-dist test-clients test-hosts test-install test-packages hostile small small-router release-check soak order bench \
    bench-check bench-record install uninstall clean

help: ## print this
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 16

# Builds faster than `make build`, with little optimization: for trying things.
run: ## run with ./providers.yaml, or against the sandbox without one
	@if [ -f providers.yaml ]; then \
	    $(CARGO) build --profile quick --locked --bin evertoken && exec target/quick/evertoken run; \
	else \
	    $(CARGO) build --profile quick --locked --package evertoken --package sandbox --bins && \
	    exec target/quick/sandbox demo --evertoken target/quick/evertoken; \
	fi

build: target/release/evertoken target/manual ## the program, its manual and completions, for `make install`

# Built only where something changed, so that root, who may have no cargo, can install what a user built.
# Both programs in one call, since each ends with a step that keeps one core alone busy; whatever else built one of
# them, both are there after this.
target/release/evertoken target/release/manual: $(SOURCES)
	$(CARGO) build --release --locked --package evertoken --package manual --bins
	@touch target/release/evertoken target/release/manual

target/static/evertoken: $(SOURCES) contrib/build-static contrib/static.ld contrib/static.order
	CARGO="$(CARGO)" contrib/build-static

target/manual: target/release/manual
	target/release/manual $@
	@touch $@

static: target/static/evertoken ## a program that needs no library of the system, in target/static
	@ls -l $<

dist: ## static programs for x86_64, aarch64, armv7, riscv64, mips and mipsel, their packages, images and sums, in target/dist (needs rustup, a C compiler, python3, dpkg, rpm)
	CARGO="$(CARGO)" contrib/packages needs
	CARGO="$(CARGO)" contrib/dist
	CARGO="$(CARGO)" contrib/packages

dist-check: ## all of `make dist` twice, of the last commit and in other folders, and compared (AGAINST=FOLDER has the first)
	CARGO="$(CARGO)" contrib/reproduce

# One build serves `make test` and `make hostile`. Most tests wait for a peer and not for the processor, hence
# more of them at once than there are cores.
TESTS := $(CARGO) test --workspace --locked --features slow-tests
# The sandbox, which is there after `make test`.
SANDBOX := $(CARGO) build --workspace --locked --features slow-tests --bin sandbox

test: ## all tests that need no other program
	RUST_TEST_THREADS=8 $(TESTS) -- --skip slow::

# With every feature and with none.
check: ## formatting, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy --all-targets --no-default-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

deny: ## licences, sources and forbidden crates of all dependencies (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

# What other systems have in place of Linux's own calls, run on Linux. Without what they do not have: the process at the other
# end of a unix socket or behind a port, what signals are ignored, a socket filter.
portable: ## the tests with the calls that macOS and FreeBSD have too
	RUST_TEST_THREADS=8 $(CARGO) test --locked --features slow-tests,portable --lib --test it -- --skip slow:: --skip simulate \
	    --skip token_page:: --skip the_running_instance_gives --skip a_running_instance_without --skip of_another_user_gets_no_key \
	    --skip who_could_connect_is_served --skip with_the_mode_that_was_asked_for \
	    --skip a_living_one_is_not --skip accepted_connections_notice --skip acknowledgements_have_a_limit \
	    --skip has_a_process_and_that_of_tcp --skip our_own_listener_is_found --skip listens_where_the_configuration_says \
	    --skip found_at_any_of_its_addresses --skip an_address_in_use_is_69 --skip ignored_stay_so

# Those of `make dist` but for x86_64, whose program is that of `make static`; built with little optimization.
EMULATED := aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf riscv64gc-unknown-linux-musl \
    mips-unknown-linux-musl mipsel-unknown-linux-musl

# Systems before machines: for these rustup may have no library, and then the tools of the build are built anew.
target/others/built: $(SOURCES) contrib/dist contrib/zig-tools contrib/build-static contrib/static.ld contrib/static.order contrib/link-others
	CARGO="$(CARGO)" contrib/link-others
	CARGO="$(CARGO)" DIST_PROFILE=quick DIST_FOLDER=target/others contrib/dist $(EMULATED)
	@touch $@

others: target/others/built ## programs for other machines, and links for macOS and FreeBSD, as tests (needs rustup, python3)

test-dist: others static ## programs for all machines, run under qemu; links for macOS and FreeBSD (needs qemu-user-static, openssl)
	$(SANDBOX)
	tests/install/emulated.py target/debug/sandbox target/static/evertoken target/others/evertoken-*

test-clients: build ## the built binary under real programs and SDKs, two real issuers and a browser (needs python3, node, chromium, git)
	$(SANDBOX)
	tests/clients/run login.py
	tests/clients/run discovery.py
	tests/clients/run assertions.py
	tests/clients/run toolkit.py
	tests/clients/run recipes.py
	tests/clients/run tools.py
	tests/clients/run commands.py
	tests/clients/run drive.py
	tests/clients/run apis.py
	tests/clients/run sticky.py
	tests/clients/run keys.py
	tests/clients/run usage.py
	tests/clients/run tunnels.py
	tests/clients/run own_tls.py
	tests/clients/run programs.py

test-hosts: build ## five hosts on one token chain, under kills, stops and cuts (ROUNDS=3; needs redis-server, haproxy, root)
	tests/clients/run hosts.py $(ROUNDS)

test-install: build static ## the installed files, each init system, and a newcomer's first hour (needs root, see tests/install/run)
	tests/install/run
	tests/clients/run first_hour.py

test-packages: build static ## the packages alone, a part of `make test-install` (needs root, rpm)
	tests/install/packages

hostile: ## floods, disks, clocks and browsers (needs root, strace, faketime, chromium, redis-server, promtool)
	RUST_TEST_THREADS=16 $(TESTS) --test it -- slow::

small: static ## memory, speed and flash writes with 64 MB and a tenth of a core (needs root, openssl, strace)
	$(CARGO) build --release --locked --package sandbox --bins
	tests/install/small_machine.py target/static/evertoken target/release/sandbox

small-router: ## the same in qemu-system-arm, with the program for armv7 (needs rustup, python3, qemu-system-arm, cpio, openssl)
	CARGO="$(CARGO)" DIST_FOLDER=target/small-router contrib/dist armv7-unknown-linux-musleabihf
	$(CARGO) build --release --locked --package sandbox --bins
	tests/install/small_router.py target/small-router/evertoken-*-armv7-unknown-linux-musleabihf target/release/sandbox

# Each step of it calls a target of this file; ROUNDS is 200 unless it is given.
release-check: ROUNDS = 200
release-check: ## what RELEASING.md asks of a machine, about a night (SHORT=1 to try it; FROM=STEP, ONLY=STEP, KEEP_GOING=1)
	@SOAK_SECONDS=$(if $(SHORT),75,$(SECONDS)) ROUNDS=$(if $(SHORT),1,$(ROUNDS)) REPEATS=$(if $(SHORT),1,$(REPEATS)) \
	    FUZZ_SECONDS=$(if $(SHORT),5,$(FUZZ_SECONDS)) FROM="$(FROM)" ONLY="$(ONLY)" KEEP_GOING="$(KEEP_GOING)" BASE="$(BASE)" \
	    $(if $(TREE),TREE="$(TREE)") contrib/release-check

soak: ## an hour of traffic, faults and kills (SECONDS=3600), then a report
	$(CARGO) build --release --locked --workspace --bins
	tests/clients/run soak.py $(SECONDS)

order: ## writes contrib/static.order and usual.order anew, for less memory at rest (needs valgrind)
	CARGO="$(CARGO)" contrib/order

bench: static ## evertoken beside nginx, HAProxy and Envoy (OPTIONS=--short for a quick look), into docs/performance.md
	$(CARGO) build --release --locked --workspace --bins
	target/release/bench $(OPTIONS)

bench-check: ## instructions of the hot path against bench/instructions.txt (needs valgrind)
	$(CARGO) build --release --locked --package bench
	target/release/bench check

bench-record: ## records the instructions of the hot path
	$(CARGO) build --release --locked --package bench
	target/release/bench check --record

install: $(BINARY) target/manual ## install under $(DESTDIR)$(PREFIX): program, manual, completions, init files
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" BINARY="$(BINARY)" contrib/install install

uninstall: ## remove the files of `make install`
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" contrib/install uninstall

clean: ## remove all built files
	$(CARGO) clean
