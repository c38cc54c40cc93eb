# `make demo` and `make test` do their own set-up; `make setup` is quick if nothing changed.
# `make setup EXTRAS=dev` leaves the servers out, `PYTHON=...` names an interpreter; setup.sh says more.
VENV := .venv
BIN := $(VENV)/bin
FAULT ?=
SERVICE ?=
TAG ?= digits:latest
BACKEND ?= docker
export VENV

.PHONY: setup demo test test-fast check chaos bench image constraints lock sbom audit clean

setup:
	@sh ./setup.sh

demo: setup
	@$(BIN)/kanaria demo $(if $(SERVICE),--service $(SERVICE)) $(if $(FAULT),--fault $(FAULT))

# Tests start thousands of commands: cache the compiled modules, so that each is compiled only once.
test test-fast: export PYTHONDONTWRITEBYTECODE =

test: setup
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Without the tests that start the whole stack, a container or a browser, or compute for many seconds.
test-fast: setup
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not exhaustive" tests/unit tests/contract

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Injects faults in every state of a release on real stacks, for one to two hours; writes docs/benchmarks/chaos.md. Run it
# as root: some faults need that.
chaos: setup
	@$(BIN)/python -m tests.chaos --write $(ARGS)

bench: setup
	@$(BIN)/python -m benchmarks $(ARGS)

# Checks that every pin of constraints.txt has a wheel for every supported Python and machine.
constraints: setup
	@$(BIN)/python .ci/check_wheels.py

# Rewrites requirements.lock, after a change of constraints.txt or of the dependencies in pyproject.toml.
lock: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/lock.py

# Writes the bill of materials of this installation as CycloneDX; `kanaria sbom TAG` writes that of a Bento.
sbom: setup
	@$(BIN)/kanaria sbom --output sbom.json

# Checks whether an installed package has a known vulnerability. Asks osv.dev, or with ARGS="--osv-url URL" another service.
audit: setup
	@$(BIN)/python .ci/audit.py $(ARGS)

# Runs from /, because BentoML refuses a Dockerfile template in a folder without its temporary files: docs/container.md.
image: setup
	@cd / && BUILDAH_FORMAT=docker "$(CURDIR)/$(BIN)/bentoml" containerize "$(TAG)" --backend "$(BACKEND)"

clean:
	rm -rf $(VENV) .kanaria
