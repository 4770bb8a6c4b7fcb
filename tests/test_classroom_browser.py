"""A class of thirty on one page, in JupyterLab and Chromium: rows that sort, names that stay text, a dark theme."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from browser import Notebook

from benchmarks.classroom import NAMES, attend

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

TAG = "<img src=x onerror=document.hit=1>"
CLASS = 30

CELLS = (
    (
        "start",
        "import avlab\nserver = avlab.Server('count.mp4', port=0, loop=True, width=160, quality=30).start()\n"
        "print(server.url)",
    ),
    ("room", "room = avlab.classroom(server)"),
    ("stop", "server.stop()"),
)
COLUMN = "(at) => [...document.querySelectorAll('.avlab-class tbody tr')].map((row) => row.children[at].textContent)"


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """In place of the fixture of this name: the browser's processes end with the module, not the test."""


@pytest.fixture
def page(tmp_path: Path, data: Path) -> Iterator[Notebook]:
    (tmp_path / "count.mp4").symlink_to(data / "count.mp4")
    with (
        browser.lab(tmp_path) as lab,
        browser.chromium() as chromium,
        browser.notebook(chromium, lab.url(lab.write("room.ipynb", CELLS))) as notebook,
    ):
        yield notebook


def test_a_class_of_thirty_is_on_one_page_and_sorts(page: Notebook) -> None:
    page.run("start", "room")
    names = [TAG, *NAMES[1:]]
    over = threading.Event()
    room = threading.Thread(
        target=attend, args=(page.text("start").strip(), CLASS, 120), kwargs={"names": names, "over": over}
    )
    room.start()
    try:
        page.until("(count) => document.querySelectorAll('.avlab-class tbody tr').length === count", CLASS)
        page.until(f"() => ({COLUMN})(0).includes({TAG!r})")
        assert page.page.evaluate("() => document.querySelectorAll('.avlab-class img').length") == 0
        assert page.page.evaluate("() => document.hit === undefined")
        said = page.page.locator(".avlab-class .say")
        page.until("() => document.querySelector('.avlab-class .say').textContent.includes('30 clients are sent')")
        assert "Mbit/s" in said.inner_text()

        page.page.locator(".avlab-class th button").nth(0).click()  # again: the other way round
        page.until("() => document.querySelector('.avlab-class th').getAttribute('aria-sort') === 'descending'")
        page.until(f"() => ({COLUMN})(0)[0] === 'Van'")
        page.page.locator(".avlab-class th button").nth(4).click()  # loss: the largest first
        page.until(f"() => ({COLUMN})(0).slice(0, 3).includes('Van')")  # who loses 4 %
        page.until("() => document.querySelector('.avlab-class tr.lossy') !== null")

        ink = (
            "() => { const c = document.querySelector('.avlab-class canvas'); if (!c.width) return 0;"
            " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            " return d.filter((v, i) => i % 4 === 3 && v > 0).length; }"
        )
        page.until(f"() => ({ink})() > 20")
        colour = "() => getComputedStyle(document.querySelector('.avlab-class td')).color"
        before = page.page.evaluate(colour)
        page.page.evaluate(
            "async () => { await window.jupyterapp.commands.execute('apputils:change-theme',"
            " { theme: 'JupyterLab Dark' }); }"
        )
        page.until("(before) => getComputedStyle(document.querySelector('.avlab-class td')).color !== before", before)
    finally:
        over.set()
        room.join(30)
    page.until("() => document.querySelectorAll('.avlab-class tbody tr').length === 0")
    page.until("() => document.querySelector('.avlab-class .news').textContent.includes('left')")
    page.run("stop")
    page.until("() => document.querySelector('.avlab-class .say').textContent.includes('ended')")
