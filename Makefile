# make run: GoogLeNet on the CPU.   make test: all tests.   make quick: the tests that take less than a minute in all.
# make check: what CI runs beside the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv takes a sixth of pip's processor time, but knows neither pip's settings nor every platform.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
install = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || $(PIP) $(filter-out --compile-bytecode,$(1))
# Made once each: what running needs, what tests and checks need beside it, and what tests compare with.
READY := $(VENV)/.ready
DEVELOPED := $(VENV)/.developed
DOWNLOADS := $(VENV)/.downloads

unexport PYTHONDONTWRITEBYTECODE  # each process would compile all that it imports

.PHONY: run test quick ray check bench docs site downloads versions clean
run: $(READY)
	$(BIN)/loadtrt run --config configs/googlenet.yaml

test: $(DEVELOPED) $(DOWNLOADS)  # tests of the GPU first: the last line tells what passed, also where these are all skipped
	$(BIN)/python -m pytest tests/gpu
	$(BIN)/python -m pytest --ignore tests/gpu -n 3 --dist loadfile  # on two cores: an eighth of the time is waiting

quick: $(DEVELOPED)
	$(BIN)/python -m pytest --quick --ignore tests/gpu -n 2 --dist loadfile

ray: $(DEVELOPED)  # fleets on a Ray cluster of this host, in an environment of its own: Ray is 240 MB, and asks for other machines
	$(BIN)/uv venv --quiet --allow-existing $(VENV)/with-ray
	$(BIN)/uv pip install --quiet --python $(VENV)/with-ray --editable '.[dev,ray]'
	$(VENV)/with-ray/bin/python -m pytest tests/runs/test_fleet_ways.py -k "not processes"

check: $(DEVELOPED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

downloads: $(DOWNLOADS)
$(DOWNLOADS): $(DEVELOPED) tests/support/downloads.py  # what tests compare with: they use no network themselves
	$(BIN)/python tests/support/downloads.py
	@touch $@

versions: $(DEVELOPED)  # the lowest and the newest versions of what loadtrt needs; the wheel and the sdist by themselves
	.ci/versions $(BIN)/uv

bench: $(DEVELOPED)
	$(BIN)/python -m benchmarks.generator

docs: $(READY)
	$(BIN)/python -m loadtrt.cli.options > docs/options.md

site: $(DEVELOPED)  # the documentation as a site in site/; fails where a link leads nowhere
	$(call install,--editable '.[docs]')
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "loadtrt needs CPython 3.11 or newer; this is " + sys.version.split()[0] + ": call make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	-$(PIP) uv
	$(call install,--compile-bytecode --editable .)
	@touch $@

$(DEVELOPED): $(READY)
	$(call install,--editable '.[dev]')
	@touch $@

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
