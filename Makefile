# Every verb does its own set-up: on a bare machine with Python 3.11 or later, `make demo` is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Else each of the hundreds of processes that the tests start would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test check format bench docs mini mini-voices clean

install: $(STAMP)

# torch comes first and by pip, by the exact version of constraints.txt, so that pip's own settings decide which build is taken.
# uv then installs in a tenth of pip's processor time; where it is not to be had, pip does the same. What is used is compiled
# at its first use, the rest never.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "cmcr needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	-$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]' || \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/cmcr demo

# One thread a process: as many processes as cores share them better than threads that wait for each other. A file's tests run
# in one process, so that what they share is made once, and in the order of names, which ends with files of quick tests.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The heavy steps beside the naive way; docs/speed.md explains the figures.
bench: install
	$(BIN)/python benchmarks/speed.py

docs: install
	$(BIN)/mkdocs build --strict

# The weights and voices of the miniature spaces are committed; these make them again.
mini: install
	$(BIN)/python recipes/mini/train.py

mini-voices: install
	$(BIN)/python recipes/mini/speak.py

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
