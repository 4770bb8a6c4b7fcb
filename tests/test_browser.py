"""The live view as a person has it: JupyterLab in Chromium, a picture that moves, sound that is heard.

One JupyterLab and one browser for all. What leaves a stream as it was is tested on one that plays on; the rest opens a
notebook of its own, with a kernel of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import numpy as np
import pytest
import tools
from browser import Lab, Notebook

from avlab.media.synth import FLASH_COLOURS, FLASH_RECT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium", "pulse")]

Open = Callable[..., AbstractContextManager[Notebook]]

START = """\
import sys
import ipywidgets
import avlab
avlab.stop_all()
server = avlab.Server("count.mp4", loop=True).start()
client = avlab.Client(server.url).start()
assert "avlab" in sys.modules and not client.error
"""

SLIDER = """\
import threading
moved = threading.Event()
quality = ipywidgets.IntSlider(description="quality", value=80, min=10, max=90, step=35)
def change(word):
    server.quality = word["new"]
    moved.set()
quality.observe(change, "value")
quality
"""

STOP = """\
import threading
client.stop()
server.stop()
assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]
for stream in ("video", "audio"):
    assert avlab.metrics.frame_ledger(client.trace, stream).closes
"""

EVENTS = 'print([f"{n}: {v}" for n, v in zip(client.trace.settings["name"], client.trace.settings["value"])])'

CELLS = (
    ("start", START),
    ("view", "client.view()"),
    ("slider", SLIDER),
    ("sleep", "moved.clear()\nprint(moved.wait(60))"),
    ("panel", "avlab.panel(server, client)"),
    ("second", "client.view()"),
    ("speaker", "client.view(sound='speaker')"),
    ("events", EVENTS),
    ("where", "print(client.speaker_name)"),
    ("shown", "print(avlab.metrics.frame_ledger(client.trace).shown)"),
    ("sync", "print(int(client.trace.sync['offset'].tail(60).abs().median() * 1000))"),
    ("delay", "print(client.playout_target)"),
    ("nothing", "1"),
    ("stop", STOP),
)
"""Cells to run one by one, in whatever order a test wants them."""


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """In place of the fixture of this name: kernels and the browser's processes end with the module, not the test."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, pulse: tools.Sound, data: Path) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    (folder / "data").symlink_to(data)
    (folder / "count.mp4").symlink_to(data / "count.mp4")
    shutil.copy(browser.ROOT / "notebooks" / "00_welcome.ipynb", folder / "notebooks")
    with browser.lab(folder, env=pulse.env) as lab:
        yield lab


@pytest.fixture(scope="module")
def chromium(lab: Lab, pulse: tools.Sound) -> Iterator[Browser]:
    with browser.chromium(env=pulse.env) as chromium:
        yield chromium


@pytest.fixture
def opened(chromium: Browser, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the test's notebook in a page of its own, as often as asked; its kernel ends with the test."""
    name = lab.write(f"{request.node.name}.ipynb", CELLS)
    yield lambda **options: browser.notebook(chromium, lab.url(name, options.pop("host", "127.0.0.1")), **options)
    lab.end_kernels()


@pytest.fixture(scope="module")
def playing(chromium: Browser, lab: Lab) -> Iterator[Notebook]:
    """A view that shows pictures and has the sound."""
    with browser.notebook(chromium, lab.url(lab.write("playing.ipynb", CELLS))) as notebook:
        notebook.run("start", "view", "slider")
        notebook.picture()
        sounds_in_the_page(notebook)
        yield notebook


def says(notebook: Notebook, selector: str, text: str) -> None:
    """Wait until one of the elements says so."""
    notebook.until(
        "([selector, text]) => [...document.querySelectorAll(selector)]"
        ".some((e) => !e.hidden && e.textContent.includes(text))",
        [selector, text],
    )


def sounds_in_the_page(notebook: Notebook) -> None:
    says(notebook, ".avlab-where", "this page")


# --- the notebook that everybody opens first ----------------------------------------------------------------------


def test_the_welcome_notebook_plays_when_all_its_cells_are_run(chromium: Browser, lab: Lab) -> None:
    with browser.notebook(chromium, lab.url("notebooks/00_welcome.ipynb")) as notebook:
        notebook.run_all()
        notebook.picture()
        notebook.frames_advance(60)  # while a cell waits
        notebook.done()
        notebook.frames_advance(60)  # and it plays on
        button = notebook.page.get_by_role("button", name="Stop everything")
        button.scroll_into_view_if_needed()
        button.click()
        says(notebook, ".jp-OutputArea", "Nothing is left: no server or client, no thread, no socket, no error.")
    lab.end_kernels()


# --- a stream that plays on -----------------------------------------------------------------------------------------


def test_the_flash_is_seen_in_the_canvas(playing: Notebook) -> None:
    left, top, right, bottom = FLASH_RECT
    middle = [(left + right) / 2, (top + bottom) / 2]
    for colour in FLASH_COLOURS[:2]:  # they take turns, one a second
        playing.page.wait_for_function(
            """([[x, y], wanted]) => {
              const canvas = document.querySelector(".avlab-canvas");
              const [r, g, b] = canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
              return [b, g, r].every((value, i) => Math.abs(value - wanted[i]) < 40);
            }""",
            arg=[middle, list(colour)],
            polling="raf",
        )


def test_the_quality_slider_changes_the_bytes_a_frame_carries(playing: Notebook) -> None:
    before = float(playing.number(0, 1, 3).split()[0])
    playing.page.locator(".noUi-handle").first.focus()
    for _ in range(2):
        playing.page.keyboard.press("ArrowLeft")
    playing.until(
        "(most) => parseFloat(document.querySelectorAll('.avlab-value')[1].textContent.split('  ')[3]) < most",
        before * 0.6,
    )


def test_frames_and_sliders_go_on_while_a_cell_sleeps(playing: Notebook) -> None:
    playing.begin("sleep")
    playing.until(
        "() => window.jupyterapp.shell.currentWidget.content.widgets"
        ".find((c) => c.model.id === 'sleep').model.executionState === 'running'"
    )
    playing.frames_advance(30)
    playing.page.locator(".noUi-handle").first.focus()
    playing.page.keyboard.press("ArrowRight")
    playing.run("nothing")
    assert playing.text("sleep").strip() == "True"  # and not the end of its patience


def test_sound_reaches_the_sound_card_from_the_page(playing: Notebook, pulse: tools.Sound) -> None:
    assert playing.page.evaluate("() => isSecureContext")
    hears_tones(playing, pulse)
    assert playing.ask("where", lambda said: "browser" in said).strip() == "the browser"


def test_the_record_is_the_page_s_own(playing: Notebook) -> None:
    assert int(playing.ask("shown", lambda said: int(said) > 60)) > 60
    assert int(playing.ask("sync", lambda said: int(said) < 40)) < 40
    playing.ask("events", lambda said: "view: here" in said)


def test_a_frozen_picture_stands_while_the_stream_goes_on_and_is_saved_as_it_came(playing: Notebook) -> None:
    freeze = playing.page.get_by_role("button", name="Freeze")
    freeze.focus()
    playing.page.keyboard.press("Enter")
    says(playing, ".avlab-note", "Frozen")
    assert freeze.get_attribute("aria-pressed") == "true"
    pixels = "() => document.querySelector('.avlab-canvas').toDataURL()"
    before = playing.page.evaluate(pixels)
    playing.until(
        "() => /^[1-9].* sent .*[1-9][0-9]* received  0 painted/"
        ".test(document.querySelector('.avlab-value').textContent)"
    )
    assert playing.page.evaluate(pixels) == before
    with playing.page.expect_download() as download:
        playing.page.get_by_role("button", name="Save picture").click()
    assert Path(download.value.path()).read_bytes()[:2] == b"\xff\xd8"
    assert download.value.suggested_filename.endswith("s.jpg")
    freeze.click()
    playing.frames_advance()


def test_the_numbers_can_be_hidden(playing: Notebook) -> None:
    statistics = playing.page.get_by_role("button", name="Statistics")
    statistics.click()
    playing.until("() => document.querySelector('.avlab-stats').hidden")
    statistics.click()
    playing.until("() => !document.querySelector('.avlab-stats').hidden")


def test_a_tab_in_the_background_is_sent_no_pictures(playing: Notebook) -> None:
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    playing.page.evaluate(hide, True)
    says(playing, ".avlab-value", "0 sent  0 received  0 painted")
    playing.page.evaluate(hide, False)
    playing.frames_advance()


def test_the_saved_notebook_holds_no_picture(playing: Notebook, lab: Lab) -> None:
    playing.save()
    saved = (lab.folder / "playing.ipynb").read_text()
    assert "widget-view+json" in saved
    assert len(saved) < 60_000


def test_stop_ends_the_frames_and_every_one_has_its_fate(playing: Notebook) -> None:
    playing.run("stop")
    says(playing, ".avlab-note", "The stream has ended")
    last = playing.frame()
    playing.run("nothing")
    assert playing.frame() == last


# --- sound --------------------------------------------------------------------------------------------------------


def hears_tones(notebook: Notebook, pulse: tools.Sound) -> None:
    """Wait until two tones were heard at the sound card."""
    with pulse.recording() as heard:
        for _ in range(100):
            notebook.frames_advance(8)
            if tones(heard(), pulse.rate) >= 2:
                return
    pytest.fail("no tone was heard")


def tones(samples: np.ndarray[Any, Any], rate: int) -> int:
    """How many tones there are: loud stretches of 50 ms after silence."""
    steps = samples[: len(samples) // (rate // 20) * (rate // 20), 0].astype(np.int64).reshape(-1, rate // 20)
    loud = abs(steps).max(axis=1, initial=0) > 4000
    return int((loud[1:] & ~loud[:-1]).sum())


def test_a_page_that_is_no_secure_context_plays_too(opened: Open, pulse: tools.Sound) -> None:
    """From another host over plain http there is no AudioWorklet."""
    with opened(host="lab.example") as notebook:
        assert not notebook.page.evaluate("() => isSecureContext")
        notebook.run("start", "view")
        notebook.picture()
        sounds_in_the_page(notebook)
        hears_tones(notebook, pulse)


def test_sound_given_to_the_speaker_in_mid_stream_is_heard_and_pictures_keep_to_it(
    opened: Open, pulse: tools.Sound
) -> None:
    with opened() as notebook:
        notebook.run("start", "view")
        notebook.picture()
        sounds_in_the_page(notebook)
        notebook.run("speaker")
        for which in (0, 1):
            notebook.frames_advance(20, which)
        says(notebook, ".avlab-where", "PyAudio")
        hears_tones(notebook, pulse)
        assert int(notebook.ask("sync", lambda said: int(said) < 40)) < 40
        notebook.ask("delay", lambda said: float(said) == 0.1)  # what was asked for, and not the page's any more
        notebook.run("stop")


HELD = """
// As a browser that waits for a click on the page before it lets sound out.
let allowed = false;
addEventListener("click", ({ target }) => { allowed ||= target.className === "avlab-enable"; }, true);
const resume = AudioContext.prototype.resume;
AudioContext.prototype.resume = function () { return allowed ? resume.call(this) : new Promise(() => {}); };
const Given = AudioContext;
AudioContext = class extends Given {
  constructor(...given) { super(...given); this.suspend(); }
};
"""


def test_while_the_browser_holds_sound_back_a_button_asks_for_the_click_that_lets_it_out(opened: Open) -> None:
    with opened(script=HELD) as notebook:
        notebook.run("start", "view")
        notebook.picture()
        enable = notebook.page.get_by_role("button", name="Enable sound")
        enable.wait_for()
        notebook.frames_advance(20)  # by the kernel's own clock meanwhile
        notebook.ask("where", lambda said: "null" in said)
        enable.click()
        sounds_in_the_page(notebook)
        enable.wait_for(state="hidden")
        notebook.frames_advance(20)


NO_SOUND = "Object.defineProperty(window, 'AudioContext', { value: undefined });"


def test_a_browser_without_sound_shows_pictures_and_says_so(opened: Open) -> None:
    with opened(script=NO_SOUND) as notebook:
        notebook.run("start", "view")
        notebook.picture()
        says(notebook, ".avlab-where", "cannot play")
        notebook.frames_advance(20)


# --- views that come and go ---------------------------------------------------------------------------------------


def test_a_reload_in_mid_stream_and_a_closed_and_reopened_tab_resume(opened: Open) -> None:
    with opened() as notebook:
        notebook.run("start", "view")
        notebook.picture()
        sounds_in_the_page(notebook)
        notebook.save()
        before = notebook.ask("events", lambda said: "sound goes to: the browser" in said)
        notebook.reload()
        notebook.picture()
        sounds_in_the_page(notebook)
        between = notebook.ask("events", came_again(before))
    with opened() as notebook:  # the same notebook and kernel in another tab
        notebook.picture()
        sounds_in_the_page(notebook)
        notebook.ask("events", came_again(between))
        notebook.run("stop")


def came_again(before: str) -> Callable[[str], bool]:
    """Whether a page has left since the events were `before`, and one had the sound since."""
    told = ("view: gone", "sound goes to: the browser")
    return lambda said: all(said.count(event) > before.count(event) for event in told)


def test_of_two_views_the_first_has_the_sound_and_the_other_takes_over(opened: Open) -> None:
    with opened() as notebook:
        notebook.run("start", "view")
        notebook.picture()
        sounds_in_the_page(notebook)
        notebook.run("second")
        notebook.until("() => document.querySelectorAll('.avlab-view').length === 2")
        says(notebook, ".avlab-where", "another view")
        for which in (0, 1):
            notebook.frames_advance(10, which)
        notebook.run("view")  # again, as a student does: the first one's page is gone, the second one's turn has come
        says(notebook, ".avlab-where", "another view")
        for which in (0, 1):
            notebook.frames_advance(10, which)
        sounds_in_the_page(notebook)
        notebook.run("stop")


def test_a_kernel_that_is_restarted_is_missed_and_the_cells_play_again(opened: Open) -> None:
    with opened() as notebook:
        notebook.run("start", "view", "panel")
        notebook.picture()
        says(notebook, ".avlab-desk .state", "playing")
        notebook.page.evaluate(
            "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"
        )
        says(notebook, ".avlab-note", "Nothing comes from the kernel")
        says(notebook, ".avlab-desk p", "Run the cells again for a panel that works")
        assert notebook.page.get_by_role("button", name="\N{BLACK RIGHT-POINTING TRIANGLE} Start").is_disabled()
        notebook.run("start", "view")
        notebook.picture()
