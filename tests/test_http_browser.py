"""The http wire's page in a real Chromium, at a phone's size: pictures, sound, numbers, a code, and pages of others."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import browser
import numpy as np
import ports
import pytest
import tools
from rawclient import until

from avlab.stream.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

PHONE = {"width": 360, "height": 740}

CLIP_NAME = "<img src=x onerror=document.hit=1>.mp4"


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """In place of the fixture of this name: the browser's processes end with the module, not the test."""


@pytest.fixture(scope="module")
def chromium(pulse: tools.Sound) -> Iterator[Browser]:
    with browser.chromium(env=pulse.env) as started:
        yield started


@contextmanager
def phone(chromium: Browser, *, dark: bool = False, refused: bool = False) -> Iterator[Page]:
    """A page of a phone's size; nothing may fail in it, unless a request is to be `refused`."""
    context = chromium.new_context(viewport=PHONE, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(browser.PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" and not refused else None)
    try:
        yield page
        assert not problems, problems
    finally:
        context.close()


def number(page: Page, name: str) -> float:
    said = page.inner_text(f"#{name}").split()[0].replace("\u2212", "-")
    return float(said) if said.lstrip("-").replace(".", "").isdigit() else 0.0


def patient(page: Page, holds: Callable[[], object]) -> None:
    """Wait for something, and let the page's events be heard meanwhile."""

    def look() -> object:
        page.wait_for_timeout(50)
        return holds()

    until(look)


def counted(page: Page) -> str:
    """What the picture's pixels sum up to: another number with each frame of the clip."""
    said: str = page.evaluate(
        """() => {
          const { width, height } = picture;
          const data = picture.getContext("2d").getImageData(0, 0, width, height).data;
          return `${width} ${height} ${data.reduce((sum, value, i) => (sum * 31 + value * (i % 7)) % 1000003, 0)}`;
        }"""
    )
    return said


def test_a_phone_with_nothing_installed_sees_and_hears_the_stream(
    chromium: Browser, pulse: tools.Sound, clip: Path, tmp_path: Path
) -> None:
    named = tmp_path / CLIP_NAME.replace("/", "")
    named.symlink_to(clip)
    with Server(named, wire="http", width=320, loop=True) as server, phone(chromium) as page:
        page.goto(server.url)
        patient(page, lambda: number(page, "fps") > 5)
        first = counted(page)
        assert first.startswith("320 176 ")
        patient(page, lambda: counted(page) != first)
        assert page.inner_text("#title") == named.stem  # as text
        assert page.title() == named.stem
        assert page.evaluate("() => document.hit") is None
        assert page.evaluate("() => document.images.length") == 0
        assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
        patient(page, lambda: number(page, "clients") == 1)
        assert number(page, "rate") > 0
        assert page.inner_text("#offset") == "no sound"
        assert server.audience["address"].tolist() == ["127.0.0.1"]

        page.click("#sound")
        with pulse.recording() as heard:
            patient(page, lambda: page.inner_text("#offset") != "no sound")
            patient(page, lambda: int(abs(heard().astype(np.int32)).max(initial=0)) > 1000)
        patient(page, lambda: abs(number(page, "offset")) < 100)
        page.click("#sound")
        patient(page, lambda: page.inner_text("#offset") == "no sound")
        assert page.inner_text("#sound") == "Play sound"

        server.width = 160
        patient(page, lambda: counted(page).startswith("160 "))
    frames = server.trace.frames
    assert set(frames["stream"]) == {"video", "audio"}


def test_the_page_follows_the_theme_and_asks_nobody_else(chromium: Browser, clip: Path) -> None:
    with Server(clip, wire="http", width=160, loop=True) as server:
        colours = []
        for dark in (False, True):
            with phone(chromium, dark=dark) as page:
                asked: list[str] = []
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto(server.url)
                patient(page, lambda page=page: number(page, "fps") > 0)
                colours.append(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
                assert len(asked) >= 4
                assert {urlsplit(url).netloc for url in asked} == {urlsplit(server.url).netloc}
        assert len(set(colours)) == 2


def test_a_class_types_its_code_or_scans_it(chromium: Browser, clip: Path) -> None:
    with Server(clip, wire="http", host="127.0.0.1", width=160, loop=True, class_code=True) as server:
        with phone(chromium, refused=True) as page:
            page.goto(server.url)
            page.wait_for_selector("#join:not([hidden])")
            assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
            assert not page.is_visible("#stage")
            page.fill("#code", "zzzzzz")
            page.click("#join button")
            patient(page, lambda: "not the class's code" in page.inner_text("#refused"))
            assert server.clients == 0
            page.fill("#code", server.class_code.lower())
            page.fill("#name", "Ada <b>")
            page.click("#join button")
            patient(page, lambda: number(page, "fps") > 0)
            assert page.inner_text("#title") == "count"
            assert server.audience["name"].tolist() == ["Ada <b>"]
            page.reload()  # it is known again
            patient(page, lambda: number(page, "fps") > 0)
        with phone(chromium) as page:
            link = server.invitation().links[0]
            assert link.endswith(f"#{server.class_code}")
            page.goto(link)
            patient(page, lambda: number(page, "fps") > 0)
            assert server.class_code not in page.url


def test_a_user_types_a_password_into_the_browser(chromium: Browser, clip: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"ada:school:{hashlib.md5(b'ada:school:lovelace').hexdigest()}\n")
    users.chmod(0o600)
    with Server(clip, wire="http", width=160, loop=True, users=users) as server:
        context = chromium.new_context(http_credentials={"username": "ada", "password": "lovelace"})
        try:
            page = context.new_page()
            page.goto(server.url)
            patient(page, lambda: number(page, "fps") > 0)
        finally:
            context.close()
        stranger = chromium.new_context()
        try:
            assert stranger.request.get(server.url).status == 401
        finally:
            stranger.close()


def test_the_end_is_said_and_a_tap_plays_again(chromium: Browser) -> None:
    pictures = [np.full((64, 64, 3), at * 20, np.uint8) for at in range(12)]
    with Server(pictures, wire="http", fps=12) as server, phone(chromium) as page:
        page.goto(server.url)
        for _ in range(2):
            patient(page, lambda: "has ended" in page.inner_text("#note"))
            assert not page.is_visible("#sound")
            page.click("#again")
            patient(page, lambda: server.clients == 1)


def test_a_server_that_comes_back_is_found_again(chromium: Browser, clip: Path) -> None:
    port = ports.free()
    with phone(chromium, refused=True) as page:
        with Server(clip, wire="http", width=160, loop=True, port=port) as server:
            page.goto(server.url)
            patient(page, lambda: number(page, "fps") > 0)
            # As of a server that is killed: no word of an end.
            page.evaluate("() => { const real = socket.onclose; socket.onclose = () => real({ code: 1006 }); }")
        patient(page, lambda: "tried again" in page.inner_text("#note"))
        with Server(clip, wire="http", width=160, loop=True, port=port) as server:
            patient(page, lambda: server.clients == 1)
            patient(page, lambda: number(page, "fps") > 0)


# ---- pages of others


EVIL = """<!doctype html><title>evil</title><script>
window.found = {};
const target = "TARGET";
const note = (name) => (what) => { found[name] = String(what && what.type || what && what.status || what); };
fetch(target + "hello").then(note("fetch"), () => note("fetch")("failed"));
fetch(target + "stream", { mode: "no-cors" }).then(note("opaque"), () => note("opaque")("failed"));
fetch(target + "join", { method: "POST", mode: "no-cors", body: "code=BCDFGH" }).then(note("post"), () => note("post")("failed"));
const image = new Image();
image.onload = () => note("image")("shown");
image.onerror = () => note("image")("failed");
image.src = target + "stream";
const socket = new WebSocket(target.replace("http", "ws") + "live");
socket.onopen = () => note("socket")("open");
socket.onerror = () => note("socket")("failed");
</script><iframe src="TARGET"></iframe>"""  # noqa: E501


@contextmanager
def evil(target: str) -> Iterator[str]:
    """A page of another origin that tries all that a browser lets it try."""

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(EVIL.replace("TARGET", target).encode())

        def log_message(self, *words: Any) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield f"http://lab.example:{made.server_port}/"
        finally:
            made.shutdown()
            thread.join(60)


def test_a_page_of_another_origin_gets_nothing(chromium: Browser, clip: Path) -> None:
    with (
        Server(clip, wire="http", width=160, loop=True) as server,
        evil(server.url) as url,
        phone(chromium, refused=True) as page,
    ):
        refused: list[tuple[str, int]] = []
        netloc = urlsplit(server.url).netloc
        page.on(
            "response",
            lambda answer: refused.append((urlsplit(answer.url).path, answer.status)) if netloc in answer.url else None,
        )
        page.goto(url)
        patient(page, lambda: len(page.evaluate("() => Object.keys(found)")) == 5)
        found = page.evaluate("() => found")
        assert set(found.values()) <= {"failed", "opaque"}, found
        assert found["image"] == found["socket"] == found["fetch"] == "failed"
        patient(page, lambda: refused)
        assert {status for _, status in refused} == {403}, refused
        assert server.clients == 0


def test_a_name_of_theirs_that_leads_here_is_refused(chromium: Browser, clip: Path) -> None:
    """DNS rebinding: the browser takes lab.example for this machine, and the page for one of that name."""
    with Server(clip, wire="http", width=160) as server, phone(chromium, refused=True) as page:
        answer = page.goto(f"http://lab.example:{urlsplit(server.url).port}/")
        assert answer is not None
        assert answer.status == 403
        assert "Host" in page.inner_text("body")
