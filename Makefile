# Every target does its own set-up: a machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test check protos bench clean

setup: $(READY)  ## create .venv with everything that was tested

# Standard output belongs to the target that asked for the set-up, so all of this goes to stderr.
$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV); this happens once" >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check torch -c constraints.txt >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt >&2
	@touch $@

demo: $(READY)  ## six questions across two processes, three with a public pair (93 MB); JSON=1 for one JSON object
	@$(BIN)/user-agent demo $(if $(JSON),--json)

test: $(READY)  ## all tests, on all processors
	@$(BIN)/pytest -q -rs -n auto --dist loadfile

check: $(READY)  ## style, types, import rule, stale stubs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python protos/generate.py --check

protos: $(READY)  ## write the message types anew
	@$(BIN)/python protos/generate.py

bench: $(READY)  ## benchmarks, a JSON object a line; ONLY=name for one
	@$(BIN)/python -m tests.bench $(ONLY)

clean:
	rm -rf $(VENV)
