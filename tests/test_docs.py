"""The documentation site builds without a warning and has every page; `make docs` runs its notebooks, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import avlab

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site is, built without running a cell."""
    to = tmp_path_factory.mktemp("site")
    options = [
        "-W",
        "--keep-going",
        "-q",
        "-c",
        "docs",
        "-b",
        "html",
        "-D",
        "nb_execution_mode=off",
        "-d",
        str(to / "read"),
    ]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", str(to / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = [
        line for line in built.stderr.splitlines() if "No source code lexer found" not in line and "WARNING" in line
    ]
    assert not said, built.stderr
    return to / "html"


def test_every_page_and_notebook_is_in_it(site: Path) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert len(pages) > 20
    for page in pages:
        assert (site / page.relative_to(ROOT)).with_suffix(".html").stat().st_size > 3_000, page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    said = "".join(page.read_text() for page in (site / "docs" / "api").glob("*.html"))
    modules = {"check", "metrics", "plots", "testing"}
    for name in avlab.__all__:
        assert f'id="avlab.{name}"' in said or f'id="avlab.parts.{name}"' in said or name in modules, name


def test_no_page_asks_another_machine_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for attribute in ('src="http', 'rel="stylesheet" href="http', "@import"):
            assert attribute not in text, (page, attribute)
