# make demo: from a budget to a trained network. make test: the package's tests but the slow ones. make check: everything
# that CI runs, so also these, and what pages, notebooks, examples and benchmark scripts show. make coverage: which lines
# tests run, in twice the time.
# make docs: the documentation, into site/. make notebooks: runs the notebooks anew, in place.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

TEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

.PHONY: demo test check coverage lint docs notebooks clean

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/search_and_train.py --out runs/demo

test: lint
	$(TEST) --ignore tests/documents -m "not slow"

check: lint
	$(TEST) --ignore tests/documents
	$(TEST) tests/documents

coverage: $(VENV)/.installed-dev
	$(TEST) --cov --cov-report term:skip-covered

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/build_site.py

notebooks: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python docs/run_notebooks.py

$(VENV)/.installed-demo: pyproject.toml constraints.txt
	$(INSTALL) --editable ".[data]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/.installed-demo $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml constraints.txt
	$(INSTALL) --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) runs site .cache
