VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.ready-demo
READY := $(VENV)/.ready
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready

# Two processes, each of which takes a file of tests, or a family of one of the largest files, at a
# time (tests/support/shards.py).
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n2 --dist=loadgroup

# A few tests of each stage, from capture to saved files.
QUICK := tests/test_import_order.py tests/test_layout.py tests/test_words.py tests/passes \
  tests/conversion/test_convert.py tests/converters/test_operators.py \
  tests/capture/test_size_ranges.py tests/partition/test_partition.py \
  tests/cache/test_store.py tests/runtime/test_engine_module.py tests/runtime/test_slots.py \
  tests/lowering/test_settle.py tests/reporting/test_report.py tests/test_backend.py \
  tests/test_ahead_of_time.py tests/artifact/test_save_load.py

# The newest that really runs (a name on PATH may be an empty shim) and can make environments.
PYTHONS := python3.13 python3.12 python3.11 python3.10 python3
FITS := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in $(PYTHONS); do $$p -c "$(FITS)" >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help setup demo serve-demo test test-quick test-nightly test-oldest test-ops gpu-check lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## a virtual environment in .venv; PYTHON=... picks the Python

demo: $(DEMO) ## a detector on a photograph, against eager; ARGS="--model ... --image ..."
	$(BIN)/python -m fxtrt run $(ARGS)

serve-demo: $(DEMO) ## the same detector as a server with a page; ARGS="--port ... --image ..."
	$(BIN)/python examples/serve_demo.py $(ARGS)

test: $(READY) ## the tests, in two processes; ARGS="-m gpu -n0", ARGS="-k relu", ARGS=--seconds ...
	$(PYTEST) -m 'not nightly' $(ARGS)

test-quick: $(READY) ## what tells within three minutes whether a change is sound
	$(PYTEST) -m 'not slow and not nightly' $(QUICK) $(ARGS)

test-nightly: $(READY) ## what `make test` leaves out: the same proofs on large detectors
	$(PYTEST) -m nightly $(ARGS)

test-oldest: BIN := $(OLDEST)/bin
test-oldest: $(OLDEST_READY) ## test-quick with the oldest torch that works; ARGS="-k ..."
	$(PYTEST) -m 'not slow and not nightly' $(QUICK) $(ARGS)

test-ops: $(READY) ## every sample of PyTorch's own operator tests, for an hour or two; build/opdb.json
	$(BIN)/python -m pytest -s --timeout=0 --all-samples --opdb-json=build/opdb.json \
	  tests/converters/test_opdb.py tests/converters/test_chains.py $(ARGS)

gpu-check: $(READY) ## the documents' detectors on this GPU against bars; ARGS="--family mask ..."
	PYTHONPATH=tests/support $(BIN)/python benchmarks/gpu_check.py --all $(ARGS)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove .venv, .venv-oldest, caches and builds
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Each environment gets these extras. The demo needs a part of what the tests need.
$(DEMO): EXTRAS := vision,serve
$(READY): EXTRAS := vision,test,dev,detectron2-test
$(OLDEST_READY): EXTRAS := vision,test
$(DEMO) $(READY): constraints.txt
$(OLDEST_READY): constraints-oldest.txt

$(DEMO) $(READY) $(OLDEST_READY): export PIP_DISABLE_PIP_VERSION_CHECK = 1
$(DEMO) $(READY) $(OLDEST_READY): pyproject.toml
	@python="$(PYTHON)"; test -n "$$python" || { \
	  echo "No Python 3.10 to 3.13 with venv found: install one (Debian, Ubuntu: python3-venv)" \
	       "or name one with PYTHON=..." >&2; exit 1; }; \
	echo "[1/2] $(@D): a virtual environment with $$python"; \
	$(@D)/bin/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(@D)
	@echo "[2/2] $(@D): torch, TensorRT-RTX and the rest: some 3 GB to download, 6 GB on disk"
	@start=$$(date +%s); seconds() { echo $$(( $$(date +%s) - start )); }; \
	(while sleep 15 >/dev/null 2>&1; do echo "  ... $$(seconds) s, still installing"; done) & \
	trap "kill $$!" EXIT; \
	$(@D)/bin/python -m pip install -qq --constraint $(filter constraints%,$^) --editable '.[$(EXTRAS)]' && \
	touch $@ $(if $(filter $(READY),$@),$(DEMO)) && echo "$(@D) is ready after $$(seconds) s"
