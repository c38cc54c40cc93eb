# `make demo` and `make test` do all their own set-up; `make setup` is quick when nothing changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FAULT ?=

.PHONY: setup demo test check constraints clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh ./setup.sh
	@touch $@

demo: setup
	@$(BIN)/kanaria demo $(if $(FAULT),--fault $(FAULT))

test: setup
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .kanaria
