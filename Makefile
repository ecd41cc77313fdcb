# Each target sets up .venv first when there is none; `make quickstart` and `make test` are all a newcomer needs.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart lastfm test test-slow test-peers peer-data lint bench bench-calibration bench-importance bench-off-policy bench-large notebooks clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: .venv/installed  ## the whole main job on a made network: fit, save, load, rank, compare
	$(BIN)/spr quickstart

lastfm: .venv/installed  ## the same on the Last.fm network; says where to put the data when it is not found
	$(BIN)/spr quickstart --data lastfm

test: .venv/installed  ## the tests and every example in a docstring
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: .venv/installed  ## whole runs: both quickstarts, the figures that the README prints
	$(BIN)/python -m pytest -q -n 2 tests/slow
	$(BIN)/python -m pytest -q -n 2 -m slow

peer-data: .venv/installed  ## fetch the data sets of the peers' own tests into the user's cache
	$(BIN)/python tests/benchmarks/peer_data.py

test-peers: peer-data  ## the peers' own tests on that data: MovieLens-100K, InstEval
	$(BIN)/python -m pytest -q tests/contracts/peers/fetched

lint: .venv/installed  ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: peer-data  ## benchmarks: each prints its ratio to a peer in the same run
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

.venv-peers/installed: tests/benchmarks/peers-requirements.txt constraints.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement $<
	touch $@

bench-calibration: .venv-peers/installed peer-data  ## calibrators beside their peers; the peers need 6 GB, most of it torch
	PYTHONPATH=. .venv-peers/bin/python tests/benchmarks/bench_calibration.py --real

bench-importance: .venv/installed  ## importance factors against the truth, 2,000 experiments: an hour
	$(BIN)/python tests/benchmarks/bench_importance.py 2000

bench-off-policy: .venv/installed  ## off-policy estimators against the truth, 40 logs of each of four worlds
	$(BIN)/python tests/benchmarks/bench_off_policy.py 40

bench-large: .venv/installed  ## 20 million rows, 1 million members: minutes, and 6 GB
	$(BIN)/python tests/benchmarks/bench_scale.py large

notebooks: .venv/installed  ## run every notebook from top to bottom
	$(BIN)/python -m pytest -q tests/notebooks

clean:  ## remove the virtual environments and what tools cache
	rm -rf .venv .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
