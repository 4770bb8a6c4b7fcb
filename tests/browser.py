"""JupyterLab in a real browser: a private server, Debian's Chromium driven by Playwright, a notebook in it.

Nothing is downloaded, and nothing of the person who runs the tests is read or written: each has folders of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from tests import ports, tools

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "avlab"
PATIENCE_MS = 60_000
ROOT = Path(__file__).parents[1]

CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
    # A host that is not this very machine's name, so that its pages are no secure context.
    "--host-resolver-rules=MAP lab.example 127.0.0.1",
]  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: notebooks in `folder` are served at `port`."""

    folder: Path
    port: int
    log: Path = field(repr=False)

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        """Where the notebook `name` is shown alone, in a workspace without a past."""
        return f"http://{host}:{self.port}/doc/tree/{name}?token={TOKEN}&reset"

    def api(self, path: str, method: str = "GET") -> Any:
        """What the server's REST interface answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            said = answer.read()
        return json.loads(said) if said else None

    def end_kernels(self) -> None:
        """End every notebook's kernel."""
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")

    def write(self, name: str, cells: Sequence[tuple[str, str]]) -> str:
        """Make a notebook of (id, code) cells; its name."""
        made = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
            cells=[nbformat.v4.new_code_cell(code, id=cell_id) for cell_id, code in cells],  # type: ignore[no-untyped-call]
            metadata={"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}},
        )
        nbformat.write(made, self.folder / name)  # type: ignore[no-untyped-call]
        return name


@contextmanager
def lab(folder: Path, *, env: dict[str, str] | None = None, python: str = sys.executable) -> Iterator[Lab]:
    """JupyterLab on the notebooks in `folder`, with settings and kernels of its own; `python` runs the kernels."""
    with tools.short_folder() as home:
        places = {
            name: str(home / name.lower())
            for name in (
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "JUPYTER_RUNTIME_DIR",
                "JUPYTERLAB_SETTINGS_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
                "IPYTHONDIR",
            )
        }
        spec = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
        kernel = home / "jupyter_data_dir" / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(
            json.dumps(spec | {"display_name": "Python 3 (ipykernel)", "language": "python"})
        )
        port = ports.free()
        made = Lab(folder, port, home / "stderr")
        # A notebook server that is asked by another name than localhost's refuses, unless told that this is meant.
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
            f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.allow_remote_access=True", "--LabApp.expose_app_in_browser=True", "--ServerApp.port_retries=0",
        ]  # fmt: skip

        def ready() -> bool:
            try:
                return made.api("status") is not None
            except (urllib.error.URLError, OSError):
                return False

        settings = home / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        where = {"PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1", "JUPYTER_PREFER_ENV_PATH": "0"}
        with tools.process(*command, folder=home, env=places | where | (env or {}), ready=ready, seconds=90):
            yield made
            made.end_kernels()


@contextmanager
def chromium(
    *, env: dict[str, str] | None = None, headless: bool = True, args: Sequence[str] = ()
) -> Iterator[Browser]:
    """Debian's Chromium, with sound."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            headless=headless,
            args=[*CHROMIUM, *args],
            ignore_default_args=["--mute-audio"],
            env=tools.environment(env or {}),
        )
        try:
            yield browser
        finally:
            browser.close()


_VALUES = "document.querySelectorAll('.avlab-stats')[which]?.querySelectorAll('.avlab-value')"
_CELLS = "window.jupyterapp.shell.currentWidget.content.widgets"


class Notebook:
    """A notebook that is open in a page, once its kernel answers. `problems` are the page's own errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def open(self, url: str) -> None:
        """Open it, and wait for its kernel."""
        self.page.goto(url)
        self.ready()

    def reload(self) -> None:
        """Load the page again, as a person does with F5."""
        self.page.reload()
        self.ready()

    def ready(self) -> None:
        """Wait for the notebook and its kernel."""
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context")
        self.page.evaluate(
            """async () => {
              const panel = window.jupyterapp.shell.currentWidget;
              await panel.context.ready;
              await panel.sessionContext.ready;
              await panel.sessionContext.session.kernel.info;
            }"""
        )

    def run_all(self) -> None:
        """Run all cells; returns before they have run."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def begin(self, cell: str) -> None:
        """Run a cell; returns before it has run."""
        self._execute(cell, "")

    def run(self, *cells: str) -> None:
        """Run cells by their ids, one after the other; AssertionError with what an error says."""
        for cell in cells:
            self._execute(cell, "await ")
        assert not self.errors(), self.errors()

    def _execute(self, cell: str, how: str) -> None:
        self.page.evaluate(
            f"""async (id) => {{
              const {{ content }} = window.jupyterapp.shell.currentWidget;
              content.deselectAll();
              content.activeCellIndex = content.widgets.findIndex((cell) => cell.model.id === id);
              {how}window.jupyterapp.commands.execute('notebook:run-cell');
            }}""",
            cell,
        )

    def done(self) -> None:
        """Wait until every cell has run; AssertionError with what an error says."""
        self.until(
            f"() => {_CELLS}.filter(c => c.model.type === 'code')"
            ".every(c => c.model.executionCount !== null && c.model.executionState === 'idle')"
        )
        assert not self.errors(), self.errors()

    def save(self) -> None:
        """Save the notebook, its outputs too."""
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")

    def errors(self) -> list[str]:
        """What failed in the notebook's cells."""
        found: list[str] = self.page.evaluate(
            f"() => {_CELLS}.filter(c => c.model.type === 'code').flatMap(c => c.model.toJSON().outputs)"
            ".filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`)"
        )
        return found

    def text(self, cell: str) -> str:
        """What a cell has printed."""
        said: str = self.page.evaluate(
            f"(id) => {_CELLS}.find(c => c.model.id === id).model.toJSON().outputs"
            ".map(o => [o.text ?? o.data?.['text/plain'] ?? ''].flat().join('')).join('')",
            cell,
        )
        return said

    def ask(self, cell: str, satisfied: Callable[[str], bool] = bool, seconds: float = 60) -> str:
        """Run a cell again and again until what it prints satisfies; what it printed."""
        deadline = time.monotonic() + seconds
        while True:
            self.run(cell)
            if satisfied(said := self.text(cell)):
                return said
            assert time.monotonic() < deadline, f"{cell} goes on saying {said!r}"
            time.sleep(0.1)

    def until(self, condition: str, arg: Any = None) -> None:
        """Wait for JavaScript to be true."""
        self.page.wait_for_function(condition, arg=arg, polling=50)

    def picture(self) -> None:
        """Bring the first live view into sight, and wait for pictures in it."""
        self.page.wait_for_selector(".avlab-canvas", state="attached")
        self.page.locator(".avlab-view").first.scroll_into_view_if_needed()
        self.frames_advance(3)

    def frame(self, which: int = 0) -> int:
        """The number of the newest picture painted, as the overlay says; 0 before the first."""
        said = self.number(which, 1, 0)
        return int(said) if said.isdigit() else 0

    def number(self, which: int, line: int, word: int) -> str:
        """A word of the overlay."""
        said: str = self.page.evaluate(
            f"([which, line, word]) => {_VALUES}?.[line]?.textContent.split('  ')[word] ?? '0'",
            [which, line, word],
        )
        return said

    def frames_advance(self, by: int = 10, which: int = 0) -> None:
        """Wait until the overlay's number has gone up by so many pictures."""
        self.until(
            f"([which, last]) => parseInt({_VALUES}?.[1]?.textContent) >= last",
            [which, self.frame(which) + by],
        )


@contextmanager
def notebook(browser: Browser, url: str, *, script: str = "") -> Iterator[Notebook]:
    """A page with a notebook open, `script` run before all else; nothing may have failed in the page at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    try:
        context.add_init_script(script)
        opened = Notebook(context.new_page())
        opened.open(url)
        yield opened
        assert not opened.problems, opened.problems
    finally:
        context.close()
