# What a person types. Each target stands on a script in compose/, which
# installs what is missing, builds, and does its job.
#
#   ARGS   passed on to the program or the tests: make demo ARGS=--json

ARGS ?=
# Whatever the caller's shell is set to, what is built is below target/.
export CARGO_TARGET_DIR := $(CURDIR)/target
.DEFAULT_GOAL := help
.PHONY: help provision build demo bench test lint image clean

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo:  ## run the whole line once on this machine (ARGS=--json)
	@compose/demo.sh $(ARGS)

test:  ## format, lints and all tests, with real broker and containers (ARGS="line tidy": these alone)
	@compose/test.sh $(ARGS)

build:  ## target/release/sluice
	@compose/provision.sh
	@cargo build --locked --release

bench:  ## measure latency and throughput (ARGS=--json)
	@compose/bench.sh $(ARGS)

lint:  ## format, lints, dependencies
	@compose/lint.sh

image:  ## the runtime image, in the store of the user that runs containers
	@compose/provision.sh --run-only
	@compose/image.sh

provision:  ## install what is missing on this machine
	@compose/provision.sh

clean:  ## remove everything that was built
	@cargo clean
