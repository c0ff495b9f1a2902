# Needs Python 3.11 with its headers, git, make and a C compiler; everything else is installed into .venv, and real
# servers for the tests into ~/.cache/guard. A second run finds all of it there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

BUILT_FROM := pyproject.toml setup.py guard/_kernels.c guard/_nghttp2.c guard/_nghttp2_abi.h

# Each of these is covered branch by branch by its own tests alone.
CORE := engine weighing assembly equipping types settings config calibration profile registry evidence alerts watching \
	linking nearness sketching windows kernels puzzles timing
CORE_TESTS := tests/core tests/wire
PROXY_TESTS := tests/proxy tests/planes tests/stores
ADVERSARY_TESTS := tests/adversary tests/bench
QUICK := "not mlserver and not long"

say = @printf '\n== %s\n' "$(1)"

.PHONY: help
help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

.PHONY: demo
demo: $(VENV)/.demo ## a real model attacked through Guard and defended by it; a table and an HTML page
	@$(BIN)/python -m demo $(DEMO_ARGS)

# Two lanes of tests on few cores: a thread that waits must not hold one.
export MKL_DYNAMIC ?= FALSE
export OMP_WAIT_POLICY ?= PASSIVE
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: test
test: servers ## everything that must pass (real Triton and Chromium included, MLServer and the long part not)
	@$(MAKE) --no-print-directory -j2 test-adversary test-rest lint contract test-core test-proxy

.PHONY: lint
lint: $(VENV)/.dev ## ruff and mypy
	$(call say,ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(call say,mypy)
	$(BIN)/mypy

.PHONY: contract
contract: $(VENV)/.dev ## protos/: generated code is fresh, lint is clean, nothing that was released breaks
	$(call say,generated code and the released contract)
	PYTHON=$(BIN)/python protos/generate.sh --check
	BUF=$(CURDIR)/$(BIN)/buf protos/check_breaking.sh

.PHONY: servers
servers: $(VENV)/.dev
	$(call say,real Triton and a real browser and Redis and Prometheus and the header of libnghttp2 for the tests)
	@$(BIN)/python -m tests.servers.install triton chromium redis nghttp2 prometheus

.PHONY: test-core
test-core: $(VENV)/.dev ## the core and the wire, every branch covered by their own tests
	$(call say,tests of the core and the wire: every branch must be covered)
	$(BIN)/python -m pytest $(CORE_TESTS) $(CORE:%=--cov=guard.%) --cov=guard.wire --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100 $(PYTEST_ARGS)

.PHONY: test-proxy
test-proxy: $(VENV)/.dev ## the proxy, both of its planes, and the stores
	$(call say,tests of the proxy and its planes and of the stores)
	$(BIN)/python -m pytest -m $(QUICK) $(filter-out tests/planes,$(PROXY_TESTS)) $(PYTEST_ARGS)
	GRPC_VERBOSITY=ERROR $(BIN)/python -m pytest --capture=sys -m $(QUICK) tests/planes $(PYTEST_ARGS)

.PHONY: test-adversary
test-adversary: $(VENV)/.dev ## the attacks, and slices of the benches
	$(call say,tests of the adversary and of the benches)
	$(BIN)/python -m pytest -m $(QUICK) $(ADVERSARY_TESTS) $(PYTEST_ARGS)

.PHONY: test-rest
test-rest: $(VENV)/.dev ## all other tests but those against MLServer
	$(call say,all other tests; left out: those against a real MLServer (make test-mlserver) and the long part (make test-long))
	$(BIN)/python -m pytest -m $(QUICK) $(patsubst %,--ignore=%,$(CORE_TESTS) $(PROXY_TESTS) $(ADVERSARY_TESTS)) \
		$(PYTEST_ARGS)

.PHONY: test-long
test-long: servers ## the long part: every attack through real gRPC, real workers timed (some ten minutes)
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

.PHONY: test-mlserver
test-mlserver: $(VENV)/.dev ## the tests against a real MLServer 1.7.1
	@$(BIN)/python -m tests.servers.install mlserver
	$(BIN)/python -m pytest -m mlserver $(PYTEST_ARGS)

.PHONY: manifests
manifests: $(VENV)/.dev ## the chart, kustomize and manifests, rendered and checked; copies and the table of values made anew
	$(BIN)/python -m deploy.check --write

.PHONY: stack
stack: $(VENV)/.dev ## Triton, Guard, Valkey and Prometheus as plain processes, until Ctrl-C
	@$(BIN)/python -m tests.servers.install triton prometheus
	@$(BIN)/python -m demo.stack

.PHONY: stack-files
stack-files: $(VENV)/.dev ## what deploy/compose.yaml mounts: the model, the profile, the secrets, in build/stack
	@$(BIN)/python -m tests.servers.install triton prometheus
	@$(BIN)/python -m demo.stack --files

.PHONY: stack-check
stack-check: $(VENV)/.dev ## traffic and an attack on the stack; every panel and rule asked of its Prometheus (minutes)
	@$(BIN)/python -m tests.servers.install triton prometheus
	@$(BIN)/python -m demo.stack --check --docs docs/results/stack.md

.PHONY: reference
reference: $(VENV)/.dev ## make docs/configure.md's reference anew from the settings
	$(BIN)/python docs/make_reference.py

.PHONY: docs
docs: $(VENV)/.dev ## the docs as a site, in build/site; a dead link or anchor ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

.PHONY: image
image: $(VENV)/.dev ## build the serving image without a daemon, start it, call it (root, buildah, runc, mmdebstrap; minutes)
	PYTHON=$(BIN)/python deploy/image/build

.PHONY: results
results: demo ## the demo, and its table in docs/results.md
	$(BIN)/python docs/make_results.py

.PHONY: bench
bench: $(VENV)/.dev ## quick benches; fails where a ratio is worse than recorded, beyond noise (not for CI)
	@$(BIN)/python -m bench.regress $(BENCH_ARGS)

.PHONY: bench-record
bench-record: $(VENV)/.dev ## the same, recorded in bench/recorded/: on a machine that does nothing else
	@$(BIN)/python -m bench.regress --record $(BENCH_ARGS)

.PHONY: bench-attacks
bench-attacks: $(VENV)/.peers ## our attacks beside other libraries', on the bare models of the shipped campaigns
	$(BIN)/python -m bench.attacks $(BENCH_ARGS)

.PHONY: bench-stages
bench-stages: $(VENV)/.peers ## what each stage costs, beside the same methods of adversarial-robustness-toolbox
	$(BIN)/python -m bench.stages $(BENCH_ARGS)

.PHONY: bench-detection
bench-detection: $(VENV)/.demo ## every detector and purifier against every attack: docs/results/detection.md
	$(BIN)/python -m bench.detection $(BENCH_ARGS)

.PHONY: bench-monitors
bench-monitors: $(VENV)/.dev ## query-pattern monitors: benign traffic, attackers, thieves: docs/results/monitors.md
	$(BIN)/python -m bench.monitors $(BENCH_ARGS)

.PHONY: bench-ladder
bench-ladder: $(VENV)/.dev ## copies made behind the whole ladder of responses: docs/results/ladder.md
	$(BIN)/python -m bench.ladder $(BENCH_ARGS)

.PHONY: bench-scale
bench-scale: $(VENV)/.dev ## what monitoring costs, and servers for ten million callers: docs/results/scale.md
	$(BIN)/python -m bench.scale $(BENCH_ARGS)

.PHONY: bench-growth
bench-growth: $(VENV)/.dev ## what a query costs as callers, rows, batches, monitors, workers grow: docs/results/growth.md
	$(BIN)/python -m bench.growth $(BENCH_ARGS)

.PHONY: bench-proxy
bench-proxy: $(VENV)/.dev ## what Guard costs a call, beside nginx, Envoy and grpcio: docs/results/speed.md
	$(BIN)/python -m bench.proxy $(BENCH_ARGS)

.PHONY: bench-neighbours
bench-neighbours: $(VENV)/.dev ## a query on a machine whose cores have other work: docs/results/neighbours.md
	$(BIN)/python -m bench.neighbours --docs docs/results/neighbours.md $(BENCH_ARGS)

.PHONY: bench-handing
bench-handing: $(VENV)/.dev ## what handing work to a thread takes: docs/results/handing.md
	$(BIN)/python -m bench.handing --docs docs/results/handing.md $(BENCH_ARGS)

.PHONY: bench-kernels
bench-kernels: $(VENV)/.dev ## what each compiled kernel saves: docs/results/kernels.md
	$(BIN)/python -m bench.kernels --docs docs/results/kernels.md $(BENCH_ARGS)

.PHONY: bench-batching
bench-batching: $(VENV)/.dev ## rows of concurrent calls in one run of a network, or not: docs/results/batching.md
	$(BIN)/python -m bench.batching $(BENCH_ARGS)

.PHONY: bench-answers
bench-answers: $(VENV)/.dev ## protected answers: labels, Square attack, membership: docs/results/answers.md
	$(BIN)/python -m bench.answers $(BENCH_ARGS)

.PHONY: bench-challenge
bench-challenge: $(VENV)/.dev ## what proof of work costs honest callers and thieves: docs/results/challenge.md
	$(BIN)/python -m bench.challenge --docs docs/results/challenge.md $(BENCH_ARGS)

.PHONY: audit
audit: ## the image's locked packages against published advisories (asks api.osv.dev)
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --disable-pip-version-check -q pip-audit==2.10.1
	@for lock in deploy/requirements/*-*.txt; do printf '\n== %s\n' "$$lock"; \
	build/audit/bin/pip-audit --strict --disable-pip --no-deps -s osv -r "$$lock" || exit 1; done

.PHONY: clean
clean: ## remove what make made in the tree (~/.cache/guard stays)
	rm -rf $(VENV) build dist *.egg-info .cache .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
	rm -f guard/*.so

$(VENV)/bin/python:
	$(call say,a virtual environment of $(PYTHON) in $(VENV))
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BUILT_FROM) | $(VENV)/bin/python
	$(call say,installing Guard with onnxruntime and torch)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[cpu,fit]'
	@touch $@

$(VENV)/.dev: $(BUILT_FROM) | $(VENV)/.demo
	$(call say,installing the tools for development)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[cpu,fit,dev]'
	@touch $@

$(VENV)/.peers: $(BUILT_FROM) | $(VENV)/.demo
	$(call say,installing the libraries that our attacks are held against)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[cpu,fit,peers]'
	@touch $@
