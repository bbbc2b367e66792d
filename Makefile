# Everything here needs Python 3.11 or newer and make, nothing else. Paths are relative, so that the folder may be
# called anything. `make help` lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format bench lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

# Made anew when it is missing or older than the lock; the stamp is written last, so a broken install is repeated.
$(INSTALLED): requirements.lock
	@"$(PYTHON)" -c "$(NEW_ENOUGH)" 2>/dev/null || { \
		echo "make: Python 3.11 or newer with venv and pip is needed, found: $$("$(PYTHON)" --version 2>&1)." \
			"Install python3.11 (on Debian also python3.11-venv), or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --compile -r requirements.lock # pip knows pip.conf, uv does not
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

demo: $(INSTALLED) ## images to submission in one go, on generated images and without a GPU
	PYTHON=$(BIN)/python sh experiments/demo.sh

test: $(INSTALLED) ## the unit tests (two processes)
	$(PYTEST) -n 2 -m "not slow"

test-slow: $(INSTALLED) ## the tests that train, install or measure
	$(PYTEST) -n 2 -m slow

lint: $(INSTALLED) ## style, formatting, types and import layers
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## rewrite the files in the house style
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: $(INSTALLED) ## the table of measurements beside other libraries
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

lock: $(INSTALLED) ## resolve pyproject.toml to requirements.lock (no addresses, no paths)
	$(BIN)/python -m uv pip compile pyproject.toml --extra dev --extra imagenet --extra launchers --extra onnx --extra tensorboard --extra zarr --quiet --no-header --python-version 3.11 \
		--output-file requirements.lock

clean: ## delete .venv, caches and builds; keeps data/ and runs/
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
