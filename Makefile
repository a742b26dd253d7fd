# Everything here works from `python3` alone; each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
DISTRIBUTIONS := -e . -e providers/kubernetes -e providers/managed -e providers/runpod -e registries -e worker
OWN := moorage moorage-kubernetes moorage-managed moorage-registries moorage-runpod moorage-worker
COMPILE = $(BIN)/uv pip compile --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	$(OWN:%=--no-emit-package %)
# Most tests wait more than they compute.
JOBS ?= 3
# SIGKILLs in `make test`; `make crash` has 1,000.
KILLS ?= 100

.PHONY: setup demo serve test test-worker crash check bench lock clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml providers/kubernetes/pyproject.toml providers/managed/pyproject.toml providers/runpod/pyproject.toml registries/pyproject.toml worker/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(DISTRIBUTIONS)
	@touch $@

demo: setup
	@$(BIN)/python scripts/demo.py

serve: setup
	@$(BIN)/moorage serve

test: setup
	MOORAGE_CRASH_KILLS=$(KILLS) $(BIN)/pytest -q -n $(JOBS) --dist worksteal

# The torch engines; torch comes without hashes, so it has a virtual environment of its own. The second line is the
# whole service on a fake RunPod whose workers run there.
test-worker: setup $(VENV)-torch/.installed
	$(VENV)-torch/bin/pytest -q worker -m torch
	MOORAGE_TORCH_PYTHON=$(CURDIR)/$(VENV)-torch/bin/python $(BIN)/pytest -q tests/e2e/runpod/test_real_workers.py

$(VENV)-torch/.installed: worker/requirements-torch.txt worker/pyproject.toml
	@test -x $(VENV)-torch/bin/python || $(PYTHON) -m venv $(VENV)-torch
	@$(VENV)-torch/bin/python -m pip install --quiet --disable-pip-version-check -r worker/requirements-torch.txt
	@$(VENV)-torch/bin/python -m pip install --quiet --disable-pip-version-check -e 'worker[onnx,queue,runpod,s3,train]' httpx hypothesis 'moto[s3,server]' pytest pytest-asyncio pytest-timeout runpod
	@touch $@

# 1,000 kills; `make test` has a tenth of them.
crash: setup
	MOORAGE_CRASH_KILLS=1000 $(BIN)/pytest -q -n $(JOBS) tests/crash

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for tests in $(wildcard providers/*/tests worker/tests registries/tests); do $(BIN)/mypy $$(find $$tests -name '*.py') || exit 1; done
	$(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m benchmarks

lock:
	@test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv==$(UV_VERSION))
	$(COMPILE) requirements.in -o requirements.lock
	$(COMPILE) requirements-service.in -o requirements-service.lock
	$(COMPILE) requirements-build.in -o requirements-build.lock

clean:
	rm -rf $(VENV) $(VENV)-torch var
