# Two commands to begin with: `make demo` and `make test`. Each makes .venv and installs into it.
# `make help` lists the rest.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
# Installed editable: a new Python file needs nothing, a new build input re-installs.
INSTALLED := .venv/installed
BUILD_INPUTS := pyproject.toml setup.py $(wildcard runtime/native/*.[ch] runtime/include/*.h)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-slow test-targets lint format docs bench bench-nets wheel wheel-test clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(INSTALLED): $(BUILD_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	touch $@

demo: $(INSTALLED)  ## train, dump and run LeNet on scanned digits
	$(BIN)/python examples/digits/train.py

test: lint test-fast wheel-test  ## everything that must pass before a push

test-fast: $(INSTALLED)  ## pytest, lit and doctests
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow and not matrix'

test-slow: $(INSTALLED)  ## the long suites: random graphs, mutated artifacts
	$(BIN)/python -m pytest -n $(JOBS) -m slow

test-targets: $(INSTALLED)  ## every kernel test for every target; aarch64 under qemu
	$(BIN)/python -m pytest -n $(JOBS) -m matrix

lint: $(INSTALLED)  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/dev/link_tree.py
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## regenerate docs/ops.md and docs/errors.md
	$(BIN)/python tools/dev/generate_docs.py

bench: $(INSTALLED)  ## the benchmarks of kernels, compiling and calls
	set -e; for name in compile_time kernels overheads; do $(BIN)/python benchmarks/$$name.py; done

bench-nets: $(INSTALLED)  ## whole networks beside the frameworks in MGEC_PEERS_ROOT
	$(BIN)/python benchmarks/nets.py

wheel: $(INSTALLED)  ## build dist/mgec-*.whl
	rm -rf build/lib build/bdist.* dist/*.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

wheel-test: wheel  ## use the wheel outside the checkout
	rm -rf build/wheel && mkdir -p build/wheel/cwd
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target build/wheel/site dist/*.whl
	cd build/wheel/cwd && PYTHONPATH=../site ../../../$(BIN)/python ../../../tools/dev/check_wheel.py

clean:  ## remove what was built, but keep .venv
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache runtime/_native.* $(INSTALLED)
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
