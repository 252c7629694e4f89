# Everything runs from a bare Python: each target first makes its own .venv, once.
#
#   make demo       tune NVIDIA's ptxas on a kernel; needs no GPU
#   make test       the tests that need neither a GPU nor much time
#   make test-slow  all tests that need no GPU
#   make lint       ruff and mypy
#   make bench      the benchmarks; see benchmarks/README.md
#   make clean      remove .venv and whatever the other targets left
#
# PYTHON=... chooses the Python that .venv is made from.

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint bench clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?=
PYTEST_ARGS ?=

help:
	@sed -n 's/^#   //p' Makefile

# A change of the requirements installs again; a .venv whose Python has gone is made anew.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
	    python=; \
	    for name in $(or $(PYTHON),python3.11 python3.12 python3); do \
	        if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            python=$$name; break; \
	        fi; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo "Python 3.11 or later is needed, and '$(or $(PYTHON),python3)' is not; install one, or say where it is: make PYTHON=/path/to/python3.11 ..." >&2; \
	        exit 1; \
	    fi; \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) || { \
	        echo "'$$python' cannot make virtual environments; on Debian and Ubuntu install python3-venv" >&2; \
	        exit 1; \
	    }; \
	fi; \
	echo "installing into $(VENV), which takes a few minutes the first time"; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[dev,ptxas]'; \
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/ptxas_spill.py --output demo-out

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile $(PYTEST_ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -m "not gpu" $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist demo-out test-output ciq_runs .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find ciq_ray searchers tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
