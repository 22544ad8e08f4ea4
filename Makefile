# make demo: from a fresh checkout to a report.  make test: from a fresh checkout to tested.
# Both set up .venv first, and again whenever a file of requirements or of native code changes.

PYTHON ?= python3
PYTEST_ARGS ?=

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
COMPILED := $(VENV)/.compiled
NATIVE := setup.py $(wildcard unlearn_jax/native/*.cc unlearn_jax/native/*.h)

# The files start in the order of tests/conftest.py, the slowest first.
PYTEST := $(VENV_PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help demo test quick lint setup clean
help:
	@echo "make demo    set up $(VENV) and run configs/ft.py on synthetic faces"
	@echo "make test    set up $(VENV) and run all tests; PYTEST_ARGS='-k store' runs some"
	@echo "make quick   the tests without the slow ones, which it names: for the edit loop"
	@echo "make lint    check the style and the types"
	@echo "make setup   only set up $(VENV); PYTHON=python3.12 chooses the interpreter"
	@echo "make clean   remove caches; $(VENV), results and the store stay"

demo: setup
	$(VENV_PYTHON) -m unlearn_jax.main --config=configs/ft.py
	@echo "Report: $(CURDIR)/runs/ft/report.html"

test: setup
	$(PYTEST) $(PYTEST_ARGS)

quick: setup
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

lint: $(INSTALLED_DEV)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy

setup: $(INSTALLED) $(COMPILED)

# An environment that works is kept: it may hold jax for a GPU. `python -m pip` rather than
# `pip`, whose first line cannot name a path with spaces.
$(INSTALLED): requirements.txt requirements-build.txt
	@$(VENV_PYTHON) -c "" 2>/dev/null || { \
	  "$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	    echo "Python 3.11 or newer is needed; '$(PYTHON)' is not one. Try: make PYTHON=python3.12" >&2; \
	    exit 1; }; \
	  echo "Creating $(VENV) with $$("$(PYTHON)" --version)"; \
	  "$(PYTHON)" -m venv --clear $(VENV); }
	$(VENV_PYTHON) -m pip install -r requirements-build.txt
	@touch $@

# Without a compiler everything works all the same, at half the speed; programs say so.
$(COMPILED): $(INSTALLED) $(NATIVE)
	rm -rf build unlearn_jax/native/*.so
	$(VENV_PYTHON) setup.py --quiet build_ext --inplace
	@if ls unlearn_jax/native/*.so >/dev/null 2>&1; then touch $@; fi

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	$(VENV_PYTHON) -m pip install -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache build ./*.egg-info unlearn_jax/native/*.so $(COMPILED)
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +
	@echo "Kept: $(VENV), and runs/ with all results and the store."
