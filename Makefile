# The commands of this repository. PYTHON is the interpreter that makes .venv.
PYTHON ?= python3
LANGUAGE ?= sw
STRATEGY ?= ot
BIN = .venv/bin
STAMP = .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint audit format faults soak bench bench-strategies study docs fetch fetch-images clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Potstill needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

fetch: $(STAMP)  ## download the starter data into the cache
	$(BIN)/python -m datamodules.fetch starter

demo: fetch  ## distil a student for Swahili (LANGUAGE=mr for another, STRATEGY=mse for another loss)
	$(BIN)/python train.py --strategy $(STRATEGY) --data starter --data.language $(LANGUAGE)

fetch-images: $(STAMP)  ## download the pictures of the starter as well
	$(BIN)/python -m datamodules.fetch starter_images

test: fetch fetch-images  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(STAMP)  ## the tests that take no more than a few seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not starter'

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict train.py evaluate.py export.py compare.py baseline.py search.py sweep.py report.py

audit: $(STAMP)  ## known vulnerabilities of the packages in .venv (asks PyPI)
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --progress-spinner off --skip-editable

format: $(STAMP)  ## let ruff reformat and mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: $(STAMP)  ## faults put into real processes: writes docs/faults.md (half an hour on 2 cores)
	$(BIN)/python -m benchmarks.faults

soak: $(STAMP)  ## a run of 2,000 steps that is killed again and again
	$(BIN)/python -m benchmarks.faults.soak

bench: fetch  ## speed against other libraries: writes docs/benchmarks.md (half an hour on 2 cores)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.transport --write-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training --write-docs

bench-strategies: fetch  ## strategies x languages x students: writes docs/results.md (hours on 2 cores)
	$(BIN)/python -m benchmarks.strategies --languages sw so fil mr --seeds 3

study: fetch fetch-images  ## what noise does to retrieval: runs/noise and its report (half an hour on 2 cores)
	$(BIN)/python sweep.py --config configs/sweeps/noise.yaml
	$(BIN)/python report.py runs/noise

docs: $(STAMP)  ## check the docs: every command and every config in them
	$(BIN)/python -m pytest tests/test_docs.py tests/test_configs.py

clean:  ## remove the virtual environment and the caches of the tools
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info
