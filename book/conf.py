"""Settings for a plain Sphinx, which builds the book without jupyter-book: make site-sphinx.

All that jupyter-book would read from _config.yml is taken from there. It does not read this file.
"""

from pathlib import Path

import yaml

_book = yaml.safe_load(Path(__file__).with_name("_config.yml").read_text(encoding="utf-8"))
globals().update(_book["sphinx"]["config"])
project = html_title = _book["title"]
author, copyright = _book["author"], _book["copyright"]
myst_enable_extensions = _book["parse"]["myst_enable_extensions"]
bibtex_bibfiles = _book["bibtex_bibfiles"]
nb_execution_mode = _book["execute"]["execute_notebooks"]
external_toc_path, external_toc_exclude_missing = "_toc.yml", _book["only_build_toc_files"]
html_theme = "sphinx_book_theme"
# Of jupyter-book alone.
_others = ("jupyter_book", "sphinx_comments", "sphinx_jupyterbook_latex")
extensions = [one for one in _book["sphinx"]["config"]["extensions"] if one not in _others]
