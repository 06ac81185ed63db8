# Needs git, make and Python 3.11 or later; everything else goes into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
PRESET ?= default

.DEFAULT_GOAL := help
.PHONY: help .venv book site-sphinx test lint lock serve scoreboard clean

help:  ## Show this help
	@awk -F':.*## ' '/^[.a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  Then: source .venv/bin/activate && genamp --help"

.venv: .venv/installed  ## Make the virtual environment (the targets below do so by themselves)

# The stamp is written last: an interrupted installation is continued, not believed.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python must be 3.11 or later, got $$($(PYTHON) --version); try make PYTHON=python3.11"; exit 2; }
	@echo "Setting up .venv (a few minutes, once) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: -c constraints.txt \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml","rb"))["project"]["optional-dependencies"]["simulate"])') || \
		echo "note: Pythia8 and FastJet have no wheels for this machine; genamp data simulate is not available here"
	@touch $@

book: .venv/installed  ## Run what is stale and write the site to _build/site
	$(BIN)/genamp build --preset $(PRESET)

# What jupyter-book pins back is newest here; all else is that of .venv.
SPHINX := .venv-sphinx
$(SPHINX)/installed: .venv/installed
	rm -rf $(SPHINX) && $(BIN)/python -m venv $(SPHINX)
	$(SPHINX)/bin/pip install --quiet --disable-pip-version-check sphinx sphinx-book-theme myst-nb sphinx-external-toc \
		sphinx-multitoc-numbering sphinx-design sphinx-exercise sphinx-togglebutton sphinx-copybutton sphinxcontrib-bibtex
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(SPHINX)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/book.pth"
	@touch $@

site-sphinx: $(SPHINX)/installed  ## Build the same pages by a plain Sphinx of today, to _build/sphinx
	rm -rf _build/sphinx _build/sphinx-sources
	$(BIN)/genamp build --preset $(PRESET) --sources _build/sphinx-sources
	PYTHONPATH=. PYTHONWARNINGS=ignore $(SPHINX)/bin/python -m sphinx -q -W --keep-going -n \
		_build/sphinx-sources _build/sphinx

test: .venv/installed lint  ## Run all tests, the site's in a real browser too
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: .venv/installed  ## Check style and the layers of the library
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

serve: .venv/installed  ## Serve the built site on this machine
	$(BIN)/genamp serve --preset $(PRESET)

scoreboard: .venv/installed  ## Print the papers' numbers beside ours
	$(BIN)/genamp scoreboard --preset $(PRESET)

# For every platform and Python; make lock LOCK=--upgrade takes newer versions.
lock:  ## Write requirements.txt, with hashes, and constraints.txt (needs uv)
	uv pip compile --quiet $(LOCK) pyproject.toml --extra test --extra simulate --universal --python-version 3.11.2 \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' --output-file requirements.txt
	{ echo '# Exact versions that the published site was made and tested with (Python 3.11.2 or later). Written by make lock.'; \
		sed -n 's/^\([^ #]*==[^ ]*\) .*/\1/p' requirements.txt; } > constraints.txt

clean:  ## Remove all runs and sites; .venv stays
	rm -rf _build
