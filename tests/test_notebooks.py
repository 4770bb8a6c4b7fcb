"""The notebooks: one anatomy, kept without what a run leaves in them; each runs from the top, and from the top again.

There is no page at the other end, so what a widget sends is never answered. What each gives as it stands goes into the
documentation site, which is built here for that reason: as by `make docs`, and no notebook is run twice for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient

import avlab

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [
    "00_welcome",
    "01_fps_extraction",
    "02_jpeg_budget",
    "03_pacing",
    "04_sockets",
    "05_loss",
    "06_playout",
    "07_adaptation",
    "08_your_own_parts",
    "09_sweep_and_tune",
    "10_two_laptops",
    "11_codecs",
    "12_captures",
]

ANATOMY = ("goal", "predict", "run", "plot", "explain", "check", "try yourself", "stop")

PLAYS_ON = "00_welcome"
"""The one whose stream goes on after Run All: its last cell is a button."""

# Run after a notebook's own cells, in its kernel: what it streamed is whole, and accounted for.
ACCOUNTS = """
stop = _
assert server.running and panel.client.running
assert str(stop.press()).startswith("\N{CHECK MARK} Nothing is left") and "Nothing is left" in stop.said.value
whole = avlab.metrics.summary(trace)
assert whole.offered > 160 and whole.shown > 0 and whole.audio_seconds > 1, whole
for stream in ("video", "audio"):
    assert avlab.metrics.frame_ledger(panel.client.trace, stream).closes
    assert avlab.metrics.packet_ledger(panel.client.trace, stream).closes
"""
AFTERWARDS = {
    "00_welcome": ACCOUNTS,
    "03_pacing": "assert all((trace.frames['stream'] == 'video').sum() > 60 for trace in streamed.values())",
    "05_loss": "assert len(ours) > 50 and ours[:50] == theirs[:50]; assert avlab.metrics.packet_ledger(real).closes",
    "06_playout": "assert broken.underruns and not whole.underruns; assert len(live.sync) > 50",
    "07_adaptation": "assert [outcome(run)['frames shown, %'] for run in (at_once, shares[0.6])] == [0, 100]",
    "08_your_own_parts": "assert ours == theirs and len(worse.sync) > 50 and avlab.metrics.packet_ledger(torn).closes",
    "12_captures": "assert gone(mine) == gone(client.trace) and len(mine.sync) > 50",
    "10_two_laptops": "assert abs(clocks.ahead_ms - 300) <= clocks.error_ms + 10 and here.meta['shared_clock']",
}
CHECK = """
import sys, threading
assert sys.executable == {executable!r}, sys.executable
assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]
verdict = avlab.check.nothing_left()
assert verdict, verdict
"""

FIGURES = {
    "00_welcome": 4,
    "01_fps_extraction": 3,
    "02_jpeg_budget": 2,
    "03_pacing": 7,
    "04_sockets": 2,
    "05_loss": 6,
    "06_playout": 5,
    "07_adaptation": 8,
    "08_your_own_parts": 2,
    "09_sweep_and_tune": 8,
    "11_codecs": 3,
    "12_captures": 7,
}
"""How many each draws, at least."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def kept() -> list[Path]:
    """Every notebook of the repository, wherever it is, but for what tools keep in hidden folders."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.ipynb"))
    return sorted(path for path in found if not any(part.startswith(".") or part == "build" for part in path.parts))


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def test_the_notebooks_are_found() -> None:
    assert [path.stem for path in NOTEBOOKS][: len(NAMES)] == NAMES


@pytest.mark.parametrize("path", kept(), ids=str)
def test_a_notebook_is_kept_as_it_was_written(path: Path) -> None:
    notebook = read(ROOT / path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)
        assert not cell.metadata
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_the_anatomy_that_all_have(path: Path) -> None:
    told = [cell.source for cell in cells(path, "markdown")]
    marks = iter([match.lower() for text in told for match in re.findall(r"^(?:\*\*|## )(.+?)(?:\*\*|$)", text, re.M)])
    missing = [part for part in ANATOMY if not any(part in mark for mark in marks)]
    assert not missing, f"in this order: {', '.join(ANATOMY)}"
    assert re.search(r"\*(20|25|30) minutes\.\*", told[0])
    assert "*Your lines (double-click here):*" in told
    for level in ("**Begin.**", "**Go on.**", "**Go far.**"):
        assert sum(level in text for text in told) == 1
    end = "stop_button" if path.stem == PLAYS_ON else "nothing_left"
    assert cells(path, "code")[-1].source.endswith(f"avlab.check.{end}()")
    assert "avlab.check.begin()" in cells(path, "code")[0].source
    assert "predict(" in "".join(cell.source for cell in cells(path, "code"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_is_a_wall(path: Path) -> None:
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= 24, cell.source
    for cell in cells(path, "markdown"):
        assert len(cell.source) <= 1_100, cell.source


class Images(HTMLParser):
    """The alt texts of a page's images."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.alts: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


def filled(source: str) -> str:
    """A cell in which every prediction is made."""
    return re.sub(r"(predict\(.*?, )\.\.\.", r"\g<1>10", source)


def outputs(notebook: Any) -> Iterator[Any]:
    return (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)


def predictions_from(notebook: Any, start: int) -> list[Any]:
    """The cells that ask for a prediction, made here, and those that draw it or hold it against what was found."""
    made = []
    for cell in notebook.cells[start:]:
        for name in re.findall(r"^(\w+) = avlab\.predict\(", cell.source, re.M):
            used = [each for each in notebook.cells if re.search(rf"\b{name}\.(on|against)\(", each.source)]
            made += [cell, *used]
    return made


@pytest.fixture(scope="module")
def kept_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site finds what notebooks gave."""
    return tmp_path_factory.mktemp("outputs")


def keep(executed: Any, path: Path, to: Path) -> None:
    """Put a notebook that was run where the site looks for its outputs."""
    for cell in executed.cells:
        cell.metadata = {}
    get_cache(str(to)).cache_notebook_bundle(CacheBundleIn(executed, str(path)), check_validity=True, overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_top_and_from_the_top_again(
    path: Path, tmp_path: Path, kept_outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kernels and settings of the person who runs the tests stay out of it: this interpreter's kernel is meant.
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    # First whole, as it stands; then with every prediction made, and left while it streams; then what was left out.
    notebook, again = read(path), read(path)
    for cell in again.cells:
        cell.source = filled(cell.source)
    code = [number for number, cell in enumerate(again.cells) if cell.cell_type == "code"]
    begun = list(takewhile(lambda cell: "client.wait" not in cell.source, again.cells))
    check = CHECK.format(executable=sys.executable)
    added = [
        nbformat.v4.new_code_cell(AFTERWARDS.get(path.stem, "") + check),  # type: ignore[no-untyped-call]
        *begun,
        again.cells[code[0]],
        nbformat.v4.new_code_cell(check),  # type: ignore[no-untyped-call]
        *predictions_from(again, len(begun)),
        nbformat.v4.new_code_cell(check),  # type: ignore[no-untyped-call]
    ]
    whole = [*notebook.cells]
    notebook.cells = [*whole, *(nbformat.from_dict(cell) for cell in added)]
    ids = [cell.id for cell in whole]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    if path.stem != PLAYS_ON:
        assert whole[-1].outputs[-1].data["text/plain"].startswith("\N{CHECK MARK} Nothing is left")
    shown = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(shown) >= FIGURES.get(path.stem, 1)
    for output in shown:
        (alt,) = Images(output.data["text/html"]).alts
        assert alt == output.metadata["image/png"]["alt"]
        assert len(alt) > 40
    if path.stem in ("00_welcome", "02_jpeg_budget"):
        widget = "application/vnd.jupyter.widget-view+json"
        assert any(widget in output.get("data", {}) for output in outputs(notebook))
    notebook.cells = whole
    for cell, cell_id in zip(whole, ids, strict=True):
        cell.id = cell_id
    keep(notebook, path, kept_outputs)


# ---- the documentation site


@pytest.fixture(scope="module")
def site(kept_outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site is, built with what the notebooks have given above; a warning is an error."""
    to = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-c", "docs", "-b", "html", "-d", str(to / "read")]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-D", f"nb_execution_cache_path={kept_outputs}", ".", to / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1_500,
    )
    assert built.returncode == 0, built.stderr
    return to / "html"


BUILDS = pytest.mark.timeout(1_600)
"""Of a test that may be the first, and the only one, to ask for the site: then all notebooks are run for it."""


@BUILDS
@pytest.mark.slow
def test_every_page_is_in_the_site_and_every_notebook_with_its_figures(site: Path) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "teaching").glob("*.md"), *NOTEBOOKS]
    assert len(pages) > 25
    for page in pages:
        made = (site / page.relative_to(ROOT)).with_suffix(".html")
        assert made.stat().st_size > 3_000, page
        text = made.read_text(encoding="utf-8")
        assert text.count('class="avlab-plot"') >= FIGURES.get(page.stem, 0), page
    for page in (ROOT / "docs" / "explained").glob("*.md"):
        drawn = (site / page.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8")
        assert 'class="avlab-plot"' in drawn or "image/png" in drawn or "_images/" in drawn, page


@BUILDS
@pytest.mark.slow
def test_no_notebook_was_run_for_the_site_that_had_been_run_before(site: Path, kept_outputs: Path) -> None:
    records = get_cache(str(kept_outputs)).list_cache_records()
    read_by = {record.uri for record in records if record.accessed > record.created}
    assert {str(path) for path in NOTEBOOKS} <= read_by
    assert len(records) == len({record.uri for record in records})


@BUILDS
@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    said = "".join(page.read_text(encoding="utf-8") for page in (site / "docs" / "api").glob("*.html"))
    modules = {"check", "metrics", "plots", "testing"}
    for name in avlab.__all__:
        assert f'id="avlab.{name}"' in said or f'id="avlab.parts.{name}"' in said or name in modules, name


@BUILDS
@pytest.mark.slow
def test_no_page_asks_another_machine_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for attribute in ('src="http', 'rel="stylesheet" href="http', "@import"):
            assert attribute not in text, (page, attribute)
