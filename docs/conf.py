"""The documentation site: `make docs` builds it from docs/ and notebooks/, and runs every notebook that has changed."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

project = "avlab"
author = "The avlab authors"
copyright = "2026, the avlab authors"
version = release = installed("avlab")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
# The project's root is the source, so that a page links to a notebook as it stands in the repository.
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "data/README.md", "CHANGELOG.md"]
exclude_patterns = ["**/.ipynb_checkpoints"]

# A notebook runs where it lies, so that its relative paths hold, and again only when its code has changed.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_in_temp = False
nb_execution_timeout = 300
nb_execution_raise_on_error = False
nb_merge_streams = True
nb_ipywidgets_js: dict[str, Any] = {}  # nothing of a page comes from another machine
# A page that nobody's kernel stands behind shows no sliders: figures and tables remain.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", 1000)]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

# In docstrings a single backtick is code, as in the prose.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "set, Rule, Lost, Delay, Target, Call"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "avlab"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_extra_path = ["site"]
html_theme_options: dict[str, Any] = {"navigation_with_keys": True}
