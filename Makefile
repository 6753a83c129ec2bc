# Two commands do everything, set-up included: `make demo` and `make test`.
# The virtual environment lives in .venv and is made again only when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Two test processes at a time: CI has two cores. make unit WORKERS=0 runs them one after the other, in this process.
# Tests of one file share a cluster of real processes, so they stay together.
WORKERS ?= 2

# Where this is set, every process would compile all of Lattice anew before it does anything: half a second of CPU for
# each node that a test or the demo starts, and as much as everything else for a command that runs once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: fuzz help compiled demo test check unit cluster proto format sim torture soak bench compare profile clean completions docs

help: ## What there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lattice needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Lattice into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	@echo "installing what the tests need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.run
	@echo "installing what the comparison and the profile need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

compiled: $(VENV)/.run
	@$(BIN)/python -m compileall -q lattice_core lattice_cli

demo: compiled ## A real three-node cluster: elects, writes, loses its leader, carries on
	@$(BIN)/lattice demo $(DEMO_ARGS)

test: check unit cluster ## Everything CI runs: lint, types, import rules, tests

check: $(VENV)/.dev ## ruff, mypy strict, import-linter, generated code and pages in step
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/generate_proto.py --check
	$(BIN)/python tools/reference.py --check

unit: $(VENV)/.dev compiled ## Tests within one process, simulator's fixed set included
	$(BIN)/python -m pytest -m "not cluster" -n $(WORKERS) --dist worksteal

cluster: $(VENV)/.dev compiled ## Tests with real server processes on loopback
	$(BIN)/python -m pytest -m cluster -n $(WORKERS) --dist loadfile

fuzz: $(VENV)/.dev ## Every decoder and the core's step(), for long: make fuzz SECONDS=600 (docs/limits.md)
	$(BIN)/python tests/fuzz/run.py --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(TARGETS)
	LATTICE_FUZZ_EXAMPLES=$(or $(EXAMPLES),3000) $(BIN)/python -m pytest --timeout 3600 tests/fuzz/test_hostile_step.py

sim: $(VENV)/.dev ## The simulator over fresh seeds: make sim SEEDS=100 HOURS=0.5 JOBS=2
	$(BIN)/lattice sim --seeds $(or $(SEEDS),100) --hours $(or $(HOURS),0.5) --jobs $(or $(JOBS),2)

torture: $(VENV)/.run compiled ## Faults on real processes, long: make torture RUNS=60 SECONDS=60 JOBS=1 SEED=1 (docs/torture.md)
	@$(BIN)/python tools/torture.py --runs $(or $(RUNS),60) --seconds $(or $(SECONDS),60) --jobs $(or $(JOBS),1) \
		$(if $(SEED),--seed $(SEED))

soak: $(VENV)/.run compiled ## An hour of load with faults; memory, descriptors, disk drawn: make soak SECONDS=3600
	@$(BIN)/python tools/soak.py --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.dev ## The figures of issue 2: puts a second, latency, fail-over
	$(BIN)/python benchmarks/put_latency.py

compare: $(VENV)/.bench ## Beside a real etcd and PySyncObj: make compare COMPARE_ARGS=--quick (benchmarks/README.md)
	$(BIN)/python benchmarks/compare.py $(COMPARE_ARGS)

profile: $(VENV)/.bench ## Where the time goes: flame graphs, threads, one put step by step, into profile/
	$(BIN)/python benchmarks/profile_server.py $(PROFILE_ARGS)

proto: $(VENV)/.dev ## Generate lattice_core/rpc/pb from proto/
	$(BIN)/python tools/generate_proto.py

completions: $(VENV)/.run ## Generate completions/ from the commands
	@for shell in bash zsh fish; do $(BIN)/lattice completion $$shell > completions/lattice.$$shell; done

docs: $(VENV)/.run completions ## Generate docs/reference, the table of metrics and completions/ from the code
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/metrics_table.py

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
