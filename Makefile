VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The newest that really runs (a name on PATH may be an empty shim) and can make environments.
PYTHONS := python3.13 python3.12 python3.11 python3.10 python3
FITS := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in $(PYTHONS); do $$p -c "$(FITS)" >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help setup demo test test-ops lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## a virtual environment in .venv; PYTHON=... picks the Python

demo: $(READY) ## a detector on a photograph, against eager; ARGS="--model ... --image ..."
	$(BIN)/python -m fxtrt run $(ARGS)

test: $(READY) ## the tests, in two processes; ARGS="-m gpu -n0", ARGS="-k relu" ...
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n2 --dist=loadfile $(ARGS)

test-ops: $(READY) ## every sample of PyTorch's own operator tests, for an hour or two; build/opdb.json
	$(BIN)/python -m pytest -s --timeout=0 --all-samples --opdb-json=build/opdb.json \
	  tests/test_opdb.py tests/test_chains.py $(ARGS)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove .venv, caches and builds
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): export PIP_DISABLE_PIP_VERSION_CHECK = 1
$(READY): pyproject.toml constraints.txt
	@python="$(PYTHON)"; test -n "$$python" || { \
	  echo "No Python 3.10 to 3.13 with venv found: install one (Debian, Ubuntu: python3-venv)" \
	       "or name one with PYTHON=..." >&2; exit 1; }; \
	echo "[1/2] $(VENV): a virtual environment with $$python"; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV)
	@echo "[2/2] $(VENV): torch, TensorRT-RTX and the rest: some 3 GB to download, 6 GB on disk"
	@start=$$(date +%s); seconds() { echo $$(( $$(date +%s) - start )); }; \
	(while sleep 15 >/dev/null 2>&1; do echo "  ... $$(seconds) s, still installing"; done) & \
	trap "kill $$!" EXIT; \
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[vision,dev,detectron2-test]' && \
	touch $@ && echo "$(VENV) is ready after $$(seconds) s"
