"""The documentation site: `make docs` builds it from docs/, notebooks/ and teaching/.

Notebooks are run by the first build, and again when their code or anything that they stand on has changed.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build" / "notebooks"
"""What notebooks gave, a folder for each state of what they stand on; the last build's remains."""


def stand_on() -> str:
    """What an output depends on beside its notebook's own code: avlab, and the clips and traces."""
    known = hashlib.sha256()
    for folder, pattern in (("avlab", "**/*.py"), ("data", "*")):
        for path in sorted((ROOT / folder).glob(pattern)):
            known.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
            known.update(hashlib.sha256(path.read_bytes()).digest())
    return known.hexdigest()[:16]


project = "avlab"
author = "The avlab authors"
copyright = "2026, the avlab authors"
version = release = installed("avlab")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
# The project's root is the source, so that a page links to a notebook as it stands in the repository.
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "teaching/*.md", "data/README.md", "CHANGELOG.md"]
exclude_patterns = ["**/.ipynb_checkpoints"]

# A notebook runs where it lies, so that its relative paths hold.
nb_execution_mode = "cache"
nb_execution_cache_path = str(KEPT / stand_on())
nb_execution_in_temp = False
nb_execution_timeout = 300
nb_execution_raise_on_error = False
nb_merge_streams = True
nb_ipywidgets_js: dict[str, Any] = {}  # nothing of a page comes from another machine
# A page that nobody's kernel stands behind shows no sliders: figures and tables remain.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", 1000)]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
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
html_math_renderer = "mathml"
html_title = "avlab"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_extra_path = ["site"]
html_theme_options: dict[str, Any] = {"navigation_with_keys": True}


def forget(app: Sphinx, failed: Exception | None) -> None:
    """Let go of what earlier states of avlab gave."""
    now = Path(app.config.nb_execution_cache_path)
    if failed is None and now.parent == KEPT and now.exists():
        for old in KEPT.iterdir():
            if old != now:
                shutil.rmtree(old) if old.is_dir() else old.unlink()


def formula(display: str) -> Any:
    """What writes a formula as MathML, which browsers draw by themselves: nothing is fetched for it."""

    def visit(writer: Any, node: Any) -> None:
        writer.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.connect("build-finished", forget)
    app.add_html_math_renderer("mathml", (formula("inline"), None), (formula("block"), None))
