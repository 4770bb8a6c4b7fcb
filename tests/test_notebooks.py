"""The notebooks: each runs from top to bottom in a fresh kernel, and is kept without what a run leaves in it.

There is no page at the other end, so what a widget sends is never answered.
"""

from __future__ import annotations

import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Run after the notebook's own cells, in its kernel: what it streamed is whole, and accounted for.
CHECK = f"""
import sys, threading
assert sys.executable == {sys.executable!r}, sys.executable
assert not client.running and not server.running
assert not [thread for thread in threading.enumerate() if thread.name.startswith("avlab-")]
whole = avlab.metrics.summary(client.trace)
assert whole.shown > 200, whole
assert whole.audio_seconds > 7, whole
for stream in ("video", "audio"):
    assert avlab.metrics.frame_ledger(client.trace, stream).closes
    assert avlab.metrics.packet_ledger(client.trace, stream).closes
"""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def kept() -> list[Path]:
    """Every notebook of the repository, wherever it is, but for what tools keep in hidden folders."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.ipynb"))
    return sorted(path for path in found if not any(part.startswith(".") or part == "build" for part in path.parts))


def test_the_notebooks_are_found() -> None:
    assert ROOT / "notebooks" / "00_welcome.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("path", kept(), ids=str)
def test_a_notebook_is_kept_as_it_was_written(path: Path) -> None:
    notebook = read(ROOT / path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)
        assert not cell.metadata
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_the_top_and_from_the_top_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kernels and settings of the person who runs the tests stay out of it: this interpreter's kernel is meant.
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    notebook = read(path)
    begun = takewhile(lambda cell: "client.wait" not in cell.source, read(path).cells)  # and left while it streamed
    check = nbformat.v4.new_code_cell(CHECK)  # type: ignore[no-untyped-call]
    notebook.cells = [*begun, *notebook.cells, check]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}})
    client.execute()  # raises CellExecutionError with the cell and its traceback
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)
