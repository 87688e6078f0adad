# The first Python that is new enough; another one is named with `make course PYTHON=python3.12`.
CANDIDATES := python3 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(p))) python3)
PY := .venv/bin/python
TESTS ?=
# All tests are shared out to this many processes, a file at a time; see LONGEST in conftest.py for the order.
WORKERS ?= -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup course test stress mutants lint docs notebooks bench bench-gpu coverage lab doctor constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make or update .venv (the other targets do it by themselves)
	@$(PYTHON) -m course setup

course: setup ## Run the whole course: every notebook in order, then the milestones
	@$(PY) -m course run

test: setup ## Run every test (TESTS="tests/ops -k matmul" narrows it down)
	@$(PY) -m pytest -q $(or $(TESTS),$(WORKERS))

stress: setup ## Run the long campaigns: training processes killed and resumed, many times
	@COURSE_STRESS=1 $(PY) -m pytest -q -m stress $(TESTS)

mutants: setup ## See every classic bug caught by the milestone tests (part of `make test`)
	@$(PY) -m course mutants

lint: setup ## Check style (ruff) and types (mypy)
	@status=0; for tool in "ruff check ." "ruff format --check ." mypy; do $(PY) -m $$tool || status=1; done; exit $$status

docs: setup ## Rewrite what is generated: milestone tables, README tables, progress/
	@$(PY) -m course docs

notebooks: setup ## Execute every notebook again and store its outputs
	@$(PY) -m course run --write

bench: setup ## Measure speed against PyTorch (needs `python -m course setup --extra parity`)
	@$(PY) -m benchmarks.run

bench-gpu: setup ## Measure speed against PyTorch on an NVIDIA GPU (extras `parity` and `gpu`)
	@$(PY) -m benchmarks.run --device cuda

coverage: setup ## Run every test and show which lines of shared/ none of them reaches
	@$(PY) -m pytest -q --cov=shared --cov-report=term-missing:skip-covered

lab: setup ## Open JupyterLab at your current sprint
	@$(PY) -m course lab

doctor: setup ## Say what this machine has, and what would be slow and why
	@$(PY) -m course doctor

constraints: setup ## Resolve the newest versions of everything and rewrite constraints.txt
	@$(PY) -m course.constraints

clean: ## Remove caches and the environment; downloads, progress and the workspace stay
	@rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache .coverage htmlcov build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
