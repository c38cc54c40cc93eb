# `make demo` and `make test` do all their own set-up; `make setup` is quick when nothing changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FAULT ?=
TAG ?= digits:latest
BACKEND ?= docker

.PHONY: setup demo test check image constraints clean

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

# From /, because BentoML refuses a Dockerfile template in a folder without its temporary files; docs/container.md.
image: setup
	@cd / && BUILDAH_FORMAT=docker "$(CURDIR)/$(BIN)/bentoml" containerize "$(TAG)" --backend "$(BACKEND)"

clean:
	rm -rf $(VENV) .kanaria
