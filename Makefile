# The four commands of this repository. Each installs what it needs (apt and cargo, as root or
# through sudo), says what and why, and is quick when everything is there already.
#
#   make run      serve homes on this machine, with no cluster:  yadokari up
#   make check    format, clippy, dependencies, unit tests: minutes, no root, no cluster
#   make test     everything, with a real Ceph cluster of one node and real Podman; needs root
#   make test-long  the same with the full length of what `make test` cuts short
#   make bench    measures homes beside other file systems: two hours, as root
#   make bench-quick  the same in minutes
#   make bench-registry  measures the registry beside others

.DEFAULT_GOAL := run
.PHONY: run build check test test-long bench bench-quick bench-registry clean

# Where `make run` keeps its state: the command's own default, so that `yadokari status` in
# another terminal finds it. `make run DATA=/somewhere` for another place.
RUN_FLAGS := $(if $(DATA),--data $(DATA))
TARGET := $(or $(CARGO_TARGET_DIR),target)

run: build
	@.ci/welcome $(TARGET)/release/yadokari $(RUN_FLAGS)
	@exec $(TARGET)/release/yadokari up $(RUN_FLAGS)

build:
	@.ci/prepare run
	cargo build --release --locked -p yadokari

check:
	@.ci/prepare check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@.ci/deny
	cargo test --workspace --exclude yadokari-tests --exclude yadokari-bench --locked

test:
	@.ci/test

test-long:
	@YADOKARI_TEST_LONG=1 .ci/test

bench:
	@.ci/bench

bench-quick:
	@.ci/bench run --quick

bench-registry:
	@.ci/bench registry

clean:
	cargo clean
