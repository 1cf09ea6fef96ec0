# make demo | learn | test | check | bench | lint | type | explorer
# The environment is made once, from the pins of constraints.txt, and again only when they change.

# The first of these that is 3.11 or 3.12; `make PYTHON=/path/to/python3.12` chooses another.
FITS := import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else 1)
PYTHON ?= $(shell for name in python3 python3.12 python3.11; do \
  if $$name -c '$(FITS)' 2>/dev/null; then echo $$name; exit; fi; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := schemas client adapters consumers producers model service app tests benchmarks deploy

.DEFAULT_GOAL := help
# `check` is a sequence, also under make -j: timings and real servers share the machine.
.NOTPARALLEL:
.PHONY: help demo learn test check bench bench-small lint type format install clean explorer explorer-packages lock

help:
	@echo "make demo    the whole stack on a synthetic shop of 1,000 products (under a minute once installed)"
	@echo "make learn   the model learns from shoppers and swaps itself in, on an embedded stack (some minutes)"
	@echo "make test    every test; those that need Apache Kafka are skipped where there is no Java or Maven"
	@echo "make check   lint, types, small benchmarks, tests: what CI runs"
	@echo "make bench   every benchmark in full, results in benchmarks/results/ and the README"
	@echo "make explorer   build the page that the service shows, from service/explorer/ (needs Node 18 or newer)"
	@echo "make lock    the hashed requirements of the container image, from constraints.txt (deploy/lock)"
	@echo "make lint    ruff;  make type: mypy --strict;  make format: rewrite the layout"

install: $(STAMP)

# Rewritten only when the content changed, so that a checkout with new file times installs nothing again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(FITS)' || { echo "simstream needs Python 3.11 or 3.12, and $(PYTHON) is" \
	  "`$(PYTHON) --version 2>&1`: run make PYTHON=/path/to/python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@wanted=`cat pyproject.toml constraints.txt | cksum`; \
	if [ "`cat $(STAMP) 2>/dev/null`" != "$$wanted" ]; then \
	  echo "installing into $(VENV) (torch is large: a few minutes the first time)"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[embedded,train,tracing,dev,bench]' && echo "$$wanted" > $(STAMP); \
	else touch $(STAMP); fi

# The page's packages, again only when the lock changes. Whoever only runs or installs simstream needs no Node:
# what is built from them is committed in service/static/.
EXPLORER := service/explorer
PACKAGES := $(EXPLORER)/node_modules/.installed

explorer-packages: $(PACKAGES)

$(PACKAGES): $(EXPLORER)/package-lock.json $(EXPLORER)/package.json
	@cd $(EXPLORER) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.installed

explorer: $(STAMP) $(PACKAGES)
	$(BIN)/simstream schemas openapi $(EXPLORER)/openapi.json
	cd $(EXPLORER) && npm run --silent types && npm run --silent check && npm test --silent && npm run --silent build

demo: $(STAMP)
	@$(BIN)/simstream demo

learn: $(STAMP)
	@$(BIN)/simstream demo-learn

# With Node at hand the page is rebuilt and compared; with chromium its flows run in a browser. Several processes,
# for most tests wait for servers; a file stays in one, so that what it starts is started once. All at nearly the
# priority of a backfill: at 19 beside busy processes at 0 it gets a fiftieth of a core, and its test waits.
WORKERS ?= 3
test: $(STAMP) $(if $(shell command -v npm),$(PACKAGES))
	nice -n 18 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25

lint: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

type: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(STAMP)
	@$(BIN)/python -m benchmarks --full; missed=$$?; $(BIN)/python -m benchmarks.readme; exit $$missed

# Without those that tests run (COVERED_BY): `python -m benchmarks --small NAME` runs one of them.
bench-small: $(STAMP) $(if $(shell command -v npm),$(PACKAGES))
	$(BIN)/python -m benchmarks --small

# Tests come last: their closing line is the summary.
check: lint type bench-small test

# After constraints.txt or the dependencies have changed. Asks the package index for hashes.
lock:
	$(PYTHON) deploy/lock/make.py

clean:
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache
