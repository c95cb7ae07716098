# Each target does all its own set-up: Python 3.11+, pip, git and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup try repro replicate test check selftest coverage format bench bench-sweep soak docs site clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: $(READY)  ## Make .venv with everything in it

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'setuptools>=77'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[development]'
	@touch $@

try: $(READY)  ## Run one study at smoke scale in a workspace of its own, .try/: a first look
	python examples/first_study.py
	@echo "Open .try/reports/site/index.html"

repro: $(READY)  ## Run the pipeline of params.yaml: datasets, sweeps, report; publish it to W&B
	python stages/check.py
	dvc repro plan
	nice -n 10 python stages/publish.py --follow & follower=$$!; \
	python stages/sweep.py --stale && dvc repro; status=$$?; kill $$follower 2>/dev/null; wait $$follower; exit $$status
	python stages/publish.py
	@echo "Read reports/site/index.html"

test: $(READY)  ## Run the tests (a smoke run of the whole pipeline among them)
	python -m pytest

check: $(READY)  ## Lint, formatting, types
	ruff check .
	ruff format --check .
	mypy

selftest: $(READY)  ## Check every golden number through the shipped code
	python -m pipeline selftest

coverage: $(READY)  ## Simulate how often each kind of interval over seeds holds the truth (two minutes)
	python -m pipeline coverage

format: $(READY)  ## Put the code into its one format
	ruff check --fix .
	ruff format .

replicate: $(READY)  ## Train the published protocols at their published size (about forty minutes on 2 cores)
	python stages/replicate.py

bench: $(READY)  ## Time the recurrences against torch.nn and a hand-unrolled loop, and what a seed costs
	python -m benchmarks

bench-sweep: $(READY)  ## Time a small study against plain Ray Tune with torch.nn, and a study and a report of 10 000 settings
	python -m benchmarks.sweep
	python -m benchmarks.many
	python -m benchmarks.large_report

SECONDS := 600
soak: $(READY)  ## Kill a sweep on an emulated cluster for ten minutes (SECONDS=90: shorter), compare what comes out
	python -m benchmarks.soak $(SECONDS)

docs: $(READY)  ## Build the documentation into site/; a broken link is an error
	mkdocs build --strict

site: docs  ## Put the documentation and the report's page on the branch gh-pages, to be pushed
	@test -f reports/site/index.html || { echo "reports/site is missing: dvc pull brings it, make repro makes it"; exit 1; }
	cp -R reports/site site/report
	ghp-import --no-jekyll --message "Publish the documentation and the report" site
	@echo "git push origin gh-pages puts it online"

clean:  ## Remove the environment and caches; datasets, results and finished trials stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
