# make run     serve homes on this machine, over an embedded store, in ./run
# make check   format, lints, licences, unit tests: minutes, no root, no Ceph
# make test    everything, with a real mount, a real Ceph cluster and real Podman; as root
# make bench   measure

RUN ?= $(CURDIR)/run
CARGO ?= cargo

.PHONY: run check test test-long bench clean-run

run:
	@.ci/prerequisites run
	$(CARGO) build --release --package yadokari
	@mkdir -p $(RUN)
	@echo
	@echo "Serving homes at $(RUN)/home. In another terminal:"
	@echo "    ls -la $(RUN)/home/\$$USER       your home (as root: mkdir $(RUN)/home/NAME first)"
	@echo "    $(CURDIR)/target/release/yadokari --data $(RUN)/data status"
	@echo "Ctrl-C ends it; everything is there again at the next make run."
	@echo
	@exec target/release/yadokari --data $(RUN)/data up --home $(RUN)/home

check:
	@.ci/prerequisites check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny --all-features check bans licenses sources
	$(CARGO) test --workspace --exclude yadokari-tests

test:
	@.ci/prerequisites test
	@.ci/test

test-long:
	@.ci/prerequisites test
	@YADOKARI_TEST_LONG=1 .ci/test

bench:
	@echo "There is no benchmark yet: nothing is claimed about speed." >&2; exit 1
