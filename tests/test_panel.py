"""The control panel without a browser: what a slider writes, what is said, what the buttons do. Handles are fakes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pages import said
from rawclient import until

import avlab
from avlab.lab.notebook import live
from avlab.lab.notebook import panel as module
from avlab.lab.notebook.controls import held
from avlab.lab.notebook.panel import NOTICES_SHOWN, Panel, hint, noticed, situation
from avlab.measure.numbers.recent import Numbers
from avlab.measure.record.trace import Recorder, Trace
from avlab.network.settings import Network
from avlab.stream.client import Client
from avlab.stream.clock import VirtualClock
from avlab.stream.handle import Handle, Worker
from avlab.stream.server import Server
from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, Pacer, PiRule, TutorialPacer, pacer_named


class FakeServer(Handle):
    """Has what a panel sets; refuses a quality above 95."""

    clip_width = 320
    notices: Sequence[str] = ()
    held_back_by: str | None = None

    def __init__(self, source: Any = "clip", *, port: int = 0, pacer: str = "deadline") -> None:
        super().__init__()
        self.url = f"rtsp://127.0.0.1:{port or 1000 + next(self.ports)}/clip"
        self.source = source
        self.width: int | None = None
        self._quality = 80
        self._pacer = pacer_named(pacer)
        self.written: list[tuple[str, Any]] = []

    ports = iter(range(1000))

    @property
    def quality(self) -> int:
        return self._quality

    @quality.setter
    def quality(self, value: int) -> None:
        if value > 95:
            raise ValueError(f"quality must be 1 to 95 here, not {value}")
        self.written.append(("quality", value))
        self._quality = value

    @property
    def pacer(self) -> Pacer:
        return self._pacer

    @pacer.setter
    def pacer(self, value: str | Pacer) -> None:
        self._pacer = pacer_named(value)

    @property
    def trace(self) -> Trace:
        return Recorder(side="server", epoch_ns=0, clock="one").trace()


class Networked(FakeServer):
    """Offers a network too."""

    network: Network | None = None


class FakeClient(Handle):
    """Has what a panel sets and reads."""

    notices: Sequence[str] = ()

    def __init__(self, url: str, *, playout_delay: float = 0.1, fail: Exception | None = None) -> None:
        super().__init__()
        self.url, self.playout_delay, self.fail = url, playout_delay, fail
        self.least, self.speaker_name = 0.0, ""

    @property
    def playout_target(self) -> float:
        return max(self.playout_delay, self.least)

    def _begin(self) -> None:
        if self.fail is not None:
            raise self.fail

    def recent(self, seconds: float) -> Trace:
        return Recorder(side="client", epoch_ns=0, clock="one").trace()


class Page:
    """The other end of the panel's desk."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.words: queue.Queue[dict[str, Any]] = queue.Queue()
        self.threads: set[str] = set()
        self.last: dict[str, Any] = {}
        panel.desk.send = self._receive

    def says(self, **word: object) -> None:
        said(self.panel.desk, word)

    def press(self, button: str) -> dict[str, Any]:
        self.says(press=button)
        return self.last

    def _receive(self, content: dict[str, Any], buffers: object = None) -> None:
        self.threads.add(threading.current_thread().name)
        self.last = content
        self.words.put(content)


Pair = tuple[Any, Any, Panel, Page]


def made(server: Any, client: Any) -> Pair:
    panel = Panel(cast(Server, server), cast(Client, client), clock=VirtualClock())
    return server, client, panel, Page(panel)


@pytest.fixture
def playing() -> Iterator[Pair]:
    with FakeServer() as server, FakeClient(server.url) as client:
        pair = made(server, client)
        yield pair
        pair[2].stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "avlab-panel"]


@pytest.fixture
def networked() -> Iterator[Pair]:
    with Networked() as server, FakeClient(server.url) as client:
        yield made(server, client)


# ---- notices


def test_every_notice_of_server_and_client_is_shown_with_whose_it_is() -> None:
    server, client, _, page = made(FakeServer(), FakeClient("rtsp://a/b"))
    page.says(hello=True)
    assert page.last["notices"] == []
    server.notices, client.notices = ("frames are skipped",), ("sound is silent", "pictures are damaged")
    page.says(hello=True)
    assert page.last["notices"] == [
        "server: frames are skipped",
        "client: sound is silent",
        "client: pictures are damaged",
    ]


def test_of_many_notices_the_latest_are_shown_and_all_are_counted() -> None:
    server = FakeServer()
    server.notices = tuple(f"notice {number}" for number in range(40))
    shown = noticed(server, None)
    assert shown[:-1] == [f"server: notice {number}" for number in range(40 - NOTICES_SHOWN, 40)]
    assert shown[-1] == "server: 40 notices in all are in server.notices"


def test_notices_come_with_the_numbers_and_stay_after_the_end(playing: Pair) -> None:
    server, _, panel, page = playing
    server.notices = ("frames are skipped",)
    page.says(hello=True)
    while not page.words.get(timeout=30).get("notices"):
        page.says(seen=page.last["number"] or 0)
    panel.stop()
    page.says(hello=True)
    assert page.last["notices"] == ["server: frames are skipped"]


def test_a_server_whose_process_does_not_answer_spoils_no_panel() -> None:
    class Deaf(FakeServer):
        @property
        def notices(self) -> tuple[str, ...]:
            raise RuntimeError("the server's process has not answered for 5 s")

    client = FakeClient("rtsp://a/b")
    client.notices = ("sound is silent",)
    assert noticed(Deaf(), client) == ["client: sound is silent"]


# ---- sliders


@pytest.mark.parametrize(
    ("name", "value", "owner", "field", "expected"),
    [
        ("quality", 42, "server", "quality", 42),
        ("width", 160, "server", "width", 160),
        ("playout", 250, "client", "playout_delay", 0.25),
    ],
)
def test_a_slider_writes_its_value_into_the_handle(
    playing: Pair, name: str, value: Any, owner: str, field: str, expected: Any
) -> None:
    server, client, panel, _ = playing
    panel.controls.settings[name].widget.value = value
    assert getattr({"server": server, "client": client}[owner], field) == expected


def test_every_slider_shows_what_its_handle_has_at_first() -> None:
    server, client, panel, _ = made(FakeServer(pacer="pi"), FakeClient("rtsp://a/b", playout_delay=2.5))
    value = {name: setting.widget.value for name, setting in panel.controls.settings.items()}
    assert value == {
        "quality": 80, "width": 320, "playout": 2500, "pacer": "pi", "kp": 0.1, "ki": 0.2, "start": 16.7, "fps": 30.0,
    }  # fmt: skip
    assert (server.width, server.written, client.playout_delay) == (None, [], 2.5)


def test_every_slider_names_its_unit_and_is_long_enough_for_it(networked: Pair) -> None:
    labels = {name: setting.widget.description for name, setting in networked[2].controls.settings.items()}
    unitless = {"quality", "pacer", "kp", "ki", "preset"}
    assert all(("(" in label) == (name not in unitless) for name, label in labels.items())
    assert max(map(len, labels.values())) <= 16  # what 112 px hold


def test_a_value_that_the_handle_refuses_is_said_and_the_slider_goes_back(playing: Pair) -> None:
    server, _, panel, page = playing
    quality = panel.controls.settings["quality"].widget
    quality.value = 99
    assert (server.quality, quality.value) == (80, 80)
    assert page.last["say"] == "Quality must be 1 to 95 here, not 99."
    assert page.last["wrong"]
    quality.value = 60
    assert (server.quality, page.last["say"], page.last["wrong"]) == (60, "", False)


def test_a_slider_that_is_dragged_writes_and_sends_nothing(playing: Pair) -> None:
    server, _, panel, page = playing
    for value in range(1, 91):
        panel.controls.settings["quality"].widget.value = value
    assert server.written == [("quality", value) for value in range(1, 91)]
    assert "MainThread" not in page.threads


def test_a_slider_s_last_value_counts_although_a_refresh_overtakes_it(playing: Pair) -> None:
    server, _, panel, _ = playing
    slider = panel.controls.settings["quality"].widget
    arrived = threading.Event()
    slider.observe(lambda change: change["new"] == 42 and arrived.set(), "value")
    slider._trait_notifiers["value"]["change"].reverse()  # told that it was moved, before the panel is
    with panel.lock:
        moving = threading.Thread(target=lambda: setattr(slider, "value", 42))
        moving.start()
        assert arrived.wait(60)
        panel.controls.refresh()  # the handle still has what it had
        assert slider.value == 80
    moving.join(10)
    assert (server.quality, slider.value) == (42, 42)


def test_what_is_set_elsewhere_is_shown_once_the_page_has_spoken(playing: Pair) -> None:
    server, client, panel, page = playing
    server.quality, client.playout_delay, server.pacer = 33, 0.5, "tutorial"
    page.says(seen=1)
    value = {name: setting.widget.value for name, setting in panel.controls.settings.items()}
    assert (value["quality"], value["playout"], value["pacer"]) == (33, 500, "tutorial")
    assert server.written == [("quality", 33)]


@pytest.mark.parametrize(
    ("asked", "least", "speaker", "said"),
    [
        (0.1, 0.06, "some device", ""),
        (0.1, 0.32, "the browser", "in force: 320 ms, for sound in the browser"),
        (0.1, 0.254, "some device", "in force: 250 ms, for the sound device"),
        (0.4, 0.32, "the browser", ""),
        (0.0, 0.32, "the browser", "pictures as they come, ahead of their sound"),
        (0.0, 0.0, "", "pictures as they come"),
    ],
)
def test_the_delay_that_holds_is_told_where_it_is_not_the_one_asked_for(
    playing: Pair, asked: float, least: float, speaker: str, said: str
) -> None:
    _, client, panel, page = playing
    slider = panel.controls.settings["playout"].widget
    slider.value = round(asked * 1000)
    client.least, client.speaker_name = least, speaker  # as when the page takes the sound over
    page.says(seen=1)
    note = panel.controls.box.children[0].children[-1].children[-1]
    assert (note.value, note.layout.display) == (said, "" if said else "none")
    assert (slider.value, client.playout_delay) == (round(asked * 1000), asked)
    client.stop()
    panel.controls.refresh()
    assert note.value == ""


def test_a_delay_that_finds_itself_is_shown_and_is_said_to(playing: Pair) -> None:
    client = SimpleNamespace(playout_delay="adaptive", playout_target=0.1344, speaker_name="", running=True)
    panel = playing[2]
    panel.client = client
    panel.controls.refresh()
    assert panel.controls.settings["playout"].widget.value == 134
    assert held(client) == "adaptive: this is what it has found"
    panel.client = playing[1]


# ---- pacing


def test_choosing_a_pacer_shows_its_own_sliders(playing: Pair) -> None:
    server, _, panel, _ = playing
    settings = panel.controls.settings
    shown = {}
    for choice in ("deadline", "pi", "tutorial", "none"):
        settings["pacer"].widget.value = choice
        shown[choice] = [n for n in ("kp", "ki", "start", "fps") if settings[n].widget.layout.display != "none"]
        assert type(server.pacer) is type(pacer_named(choice))
    assert shown == {"deadline": [], "pi": ["kp", "ki", "fps"], "tutorial": ["start", "fps"], "none": []}


def test_gains_reach_the_rule_that_runs_which_goes_on_from_where_it_is(playing: Pair) -> None:
    server, _, panel, _ = playing
    settings = panel.controls.settings
    settings["pacer"].widget.value = "pi"
    pacer = server.pacer
    settings["kp"].widget.value = 0.35
    settings["ki"].widget.value = 0.6
    settings["fps"].widget.value = 25
    assert server.pacer is pacer
    assert (pacer.rule.kp, pacer.rule.ki, pacer.fps, pacer.name) == (0.35, 0.6, 25, "pi (kp=0.35, ki=0.6)")
    settings["fps"].widget.value = 30
    assert pacer.fps is None  # the clip's own rate


def test_gains_that_would_swing_ever_wider_are_refused(playing: Pair) -> None:
    server, _, panel, page = playing
    settings = panel.controls.settings
    settings["pacer"].widget.value = "pi"
    settings["kp"].widget.value = 0.8
    settings["ki"].widget.value = 0.5
    assert (server.pacer.rule.ki, settings["ki"].widget.value) == (0.2, 0.2)
    assert page.last["say"].startswith("pi_rule is stable for")


def test_the_tutorials_first_wait_is_in_milliseconds(playing: Pair) -> None:
    server, _, panel, _ = playing
    panel.controls.settings["pacer"].widget.value = "tutorial"
    panel.controls.settings["start"].widget.value = 40
    assert isinstance(server.pacer, TutorialPacer)
    assert server.pacer.start == 0.04


def test_ones_own_pacer_is_a_choice_beside_the_others() -> None:
    server = FakeServer()
    own = server.pacer = FeedbackPacer(lambda delay, measured_fps, target_fps: delay, name="mine")
    _, _, panel, _ = made(server, None)
    choice = panel.controls.settings["pacer"].widget
    assert choice.label == "mine (your own)"
    assert server.pacer is own
    choice.value = "deadline"
    assert isinstance(server.pacer, DeadlinePacer)
    choice.value = "own"
    assert server.pacer is own


# ---- network


def test_without_a_network_there_are_no_sliders_for_one(playing: Pair) -> None:
    assert not {"loss", "burst", "delay", "jitter", "rate", "preset"} & set(playing[2].controls.settings)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("loss", 2.5, Network(loss=0.025)),
        ("burst", 4.0, Network(burst=4)),
        ("delay", 120.0, Network(delay=0.12)),
        ("jitter", 15.0, Network(jitter=0.015)),
        ("rate", 2000, Network(rate=2000)),
        ("preset", "classroom", Network.presets["classroom"]),
    ],
)
def test_a_networks_slider_replaces_one_field(networked: Pair, name: str, value: Any, expected: Network) -> None:
    server, _, panel, _ = networked
    panel.controls.settings[name].widget.value = value
    assert server.network == expected


def test_a_preset_moves_the_other_sliders_and_a_slider_leaves_the_preset(networked: Pair) -> None:
    server, _, panel, _ = networked
    settings = panel.controls.settings
    settings["preset"].widget.value = "4g"
    assert (settings["loss"].widget.value, settings["rate"].widget.value) == (0.1, 13_000)  # a rate that was no choice
    settings["rate"].widget.value = 0
    assert (server.network.rate, settings["preset"].widget.value) == (None, "own")
    settings["preset"].widget.value = "none"
    assert (server.network, settings["loss"].widget.value) == (Network(), 0)
    settings["preset"].widget.value = "own"  # which these sliders are not
    assert (server.network, settings["preset"].widget.value) == (Network(), "none")


def test_without_a_network_the_preset_says_so(networked: Pair) -> None:
    server, _, panel, _ = networked
    settings = panel.controls.settings
    assert settings["preset"].widget.label == "none"
    settings["burst"].widget.value = 4  # of what is not lost
    assert settings["preset"].widget.label == "none"
    server.network = Network(loss=0.02, seed=7)
    panel.controls.refresh()
    assert settings["preset"].widget.label == "own values"


# ---- buttons


def test_stop_stops_both_and_start_makes_new_ones_set_as_the_sliders_are(playing: Pair) -> None:
    server, client, panel, page = playing
    panel.controls.settings["quality"].widget.value = 30
    panel.controls.settings["playout"].widget.value = 300
    word = page.press("stop")
    assert (server.running, client.running) == (False, False)
    assert (word["state"], word["start"], word["stop"]) == ("stopped", True, False)
    word = page.press("start")
    assert (word["state"], word["start"], word["stop"]) == ("playing", False, True)
    assert (panel.server.quality, panel.server.source) == (30, "clip")
    assert (panel.client.playout_delay, panel.client.url) == (0.3, panel.server.url)
    assert panel.server is not server
    assert panel.client is not client


def test_start_replaces_only_the_client_while_the_server_runs(playing: Pair) -> None:
    server, client, panel, page = playing
    client.stop()
    assert situation(server, client)[1] == "The client has ended, the server still runs. Start makes a new client."
    page.press("start")
    assert panel.server is server
    assert panel.client is not client
    assert panel.client.url == server.url


def test_a_client_that_plays_something_else_keeps_its_address() -> None:
    _, _, panel, page = made(FakeServer(), FakeClient("rtsp://relay:7/clip"))
    page.press("start")
    page.press("stop")
    page.press("start")
    assert panel.client.url == "rtsp://relay:7/clip"
    page.press("stop")


def test_start_starts_handles_that_were_not_started_yet() -> None:
    server, client, panel, page = made(FakeServer(), FakeClient("rtsp://a/b"))
    page.says(hello=True)
    assert (page.last["state"], page.last["say"]) == ("ready", "Nothing has been started yet: press Start.")
    page.press("start")
    assert panel.server is server
    assert panel.client is client
    assert client.running
    page.press("stop")


def test_what_fails_at_the_start_is_said_and_can_be_tried_again() -> None:
    server, _, _, page = made(FakeServer(), FakeClient("rtsp://a/b", fail=ConnectionError("nobody answers at a")))
    word = page.press("start")
    assert (word["say"], word["wrong"], word["start"], word["stop"]) == ("Nobody answers at a.", True, True, True)
    assert server.running
    assert page.press("start")["say"] == "Nobody answers at a."
    assert page.press("stop")["stop"] is False


def test_a_source_that_can_be_read_only_once_cannot_be_started_again() -> None:
    _, _, _, page = made(FakeServer(source=iter([1, 2])), None)
    page.press("start")
    page.press("stop")
    assert "can be read only once" in page.press("start")["say"]


def test_reset_sets_back_what_there_was_at_first(playing: Pair) -> None:
    server, client, panel, page = playing
    for name, value in (("quality", 10), ("width", 80), ("playout", 900), ("pacer", "pi")):
        panel.controls.settings[name].widget.value = value
    page.press("reset")
    assert (server.quality, server.width, client.playout_delay) == (80, None, 0.1)
    assert isinstance(server.pacer, DeadlinePacer)
    assert panel.controls.settings["width"].widget.value == 320


def test_reset_gives_a_pi_pacer_of_ones_own_its_gains_back() -> None:
    server, _, panel, page = made(FakeServer(pacer="pi"), None)
    panel.controls.settings["kp"].widget.value = 0.5
    page.press("reset")
    assert isinstance(server.pacer.rule, PiRule)
    assert (server.pacer.rule.kp, panel.controls.settings["kp"].widget.value) == (0.1, 0.1)


# ---- what goes on


def test_numbers_come_from_one_thread_and_one_at_a_time(playing: Pair) -> None:
    _, _, _, page = playing
    page.says(hello=True)
    word: dict[str, Any] = {}
    while not word.get("number"):
        word = page.words.get(timeout=60)
    assert word["number"] == 1
    assert [name for name, _ in word["numbers"]] == [
        "sent", "received", "shown", "A/V offset", "loss", "bit rate", "buffer",
    ]  # fmt: skip
    assert page.threads == {"MainThread", "avlab-panel"}


def test_whose_path_holds_the_others_back_is_said(playing: Pair) -> None:
    server, _, _, page = playing
    server.held_back_by = "10.0.0.7"  # type: ignore[attr-defined]
    page.says(hello=True)
    word: dict[str, Any] = {"say": ""}
    while "10.0.0.7" not in word["say"]:
        word = page.words.get(timeout=60)
    assert "Rate control: less is sent to all" in word["say"]


def test_a_server_that_fails_is_named_with_its_reason(playing: Pair) -> None:
    server, client, _, page = playing
    server.spawn("bad", fail)
    until(lambda: not server.running)
    client.stop()
    page.says(hello=True)
    assert page.last["say"] == "The server failed. The clip is damaged. Start makes a new one."
    assert (page.last["state"], page.last["start"], page.last["wrong"]) == ("failed", True, True)
    assert page.press("stop")["say"].startswith("The clip is damaged")  # it raises what nobody had heard of
    assert page.press("start")["state"] == "playing"


def fail(worker: Worker) -> None:
    raise ValueError("the clip is damaged")


FINE = Numbers(
    sent_fps=30, received_fps=30, shown_fps=30, offset_ms=10, loss_percent=0, bitrate_kbps=900, buffer_ms=330,
    target_fps=30, late=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"sent_fps": 12}, ""),  # a clip of varying rate may have no more
        ({"late": 1}, "1 frame of the last 2 s came too late to be shown. A longer playout delay waits for them."),
        (
            {"late": 9, "shown_fps": None, "offset_ms": None, "sent_fps": 21.2},
            "9 frames of the last 2 s came too late to be shown. "
            "21 of 30 frames a second are sent: the pacer is slow, or kept busy.",
        ),
        (
            {"loss_percent": 26.4, "shown_fps": None, "received_fps": None, "offset_ms": None},
            "26 % of the packets are lost, and a frame needs all of its own. "
            "A lower quality or width, or more rate, brings frames back.",
        ),
        ({"loss_percent": 2.0, "shown_fps": 25}, ""),
        ({"offset_ms": 1234.0}, "The picture comes 1,234 ms after its sound."),
        ({"offset_ms": -190.0}, "The picture comes 190 ms before its sound."),
        ({"offset_ms": 90.0}, ""),
    ],
)
def test_numbers_that_are_bad_are_put_into_words(changes: dict[str, Any], said: str) -> None:
    assert hint(replace(FINE, **changes)) == said


def test_when_the_client_ends_the_server_is_still_watched(playing: Pair) -> None:
    server, client, _, page = playing
    client.stop()
    until(lambda: any(worker.name == "avlab-panel" and worker.alive for worker in server.workers))
    server.stop()
    assert (page.last["state"], page.last["stop"]) == ("stopped", False)


def test_a_panel_for_handles_that_have_stopped_says_so_and_starts_no_thread() -> None:
    with FakeServer() as server, FakeClient(server.url) as client:
        pass
    _, _, _, page = made(server, client)
    page.says(hello=True)
    assert (page.last["state"], page.last["start"], page.last["stop"]) == ("stopped", True, False)
    assert "avlab-panel" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("waits", [True, False])
def test_the_panel_says_when_sliders_wait_while_a_cell_runs(
    playing: Pair, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    monkeypatch.setattr("avlab.lab.notebook.view.sliders_wait", lambda: waits, raising=False)
    playing[3].says(hello=True)
    assert playing[3].last["waits"] is waits


def test_closing_a_panel_ends_its_thread_and_not_the_stream(playing: Pair) -> None:
    server, client, panel, _ = playing
    panel.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "avlab-panel"]
    assert server.running
    assert client.running


# ---- picture inside


class FakeView(module.Desk):
    """In a view's place."""

    made: list[FakeView] = []  # noqa: RUF012

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__()
        self.client, self.settings = client, settings
        self.made.append(self)


def test_the_picture_inside_follows_a_new_client(playing: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avlab.lab.notebook.view.View", FakeView)
    monkeypatch.setattr(FakeView, "made", [])
    _, client, panel, page = playing
    assert panel.view(sound="none") is panel
    page.press("stop")
    assert len(FakeView.made) == 1  # the last picture stays
    page.press("start")
    assert [view.client for view in FakeView.made] == [client, panel.client]
    assert {tuple(view.settings.items()) for view in FakeView.made} == {(("sound", "none"),)}
    panel.extras[0].switch.value = False
    assert panel.extras[0].box.children == ()


def test_what_shows_the_old_handles_shows_the_new_ones(playing: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client, panel, page = playing
    followed: list[tuple[Any, Any]] = []
    monkeypatch.setattr("avlab.lab.notebook.view.follow", lambda old, new: followed.append((old, new)))
    second, others = Panel(server, client), Panel(None, client)
    page.press("stop")
    page.press("start")
    assert followed == [(client, panel.client)]
    assert (second.server, second.client) == (panel.server, panel.client)
    assert (others.server, others.client) == (None, client)
    for each in (second, others):
        each.close()


# ---- the public face


def test_a_panel_needs_a_handle() -> None:
    with pytest.raises(ValueError, match="a server, a client, or both"):
        avlab.panel(None)
    with pytest.raises(TypeError, match="panel takes a Server there, or None, not str"):
        avlab.panel("clip.mp4")  # type: ignore[arg-type]


def test_a_panel_displays_itself_once_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        execution_count = 1

    shell, displayed = Shell(), []
    monkeypatch.setattr(live, "get_ipython", lambda: shell)
    monkeypatch.setattr(module, "get_ipython", lambda: shell)
    monkeypatch.setattr(live, "display", lambda data, **_: displayed.append(data))
    monkeypatch.setattr(module, "display", lambda widget: widget._ipython_display_())
    shown = avlab.panel(cast(Server, FakeServer()))
    shown._ipython_display_()
    assert len(displayed) == 1
    assert "application/vnd.jupyter.widget-view+json" in displayed[0]
    shell.execution_count = 2
    shown._ipython_display_()
    assert len(displayed) == 2


@pytest.mark.slow
def test_a_real_server_and_client_start_again_with_what_the_sliders_say(clip: Any) -> None:
    with avlab.Server(clip, loop=True) as server, avlab.Client(server.url, audio="null") as client:
        panel = Panel(server, client)
        page = Page(panel)
        panel.controls.settings["width"].widget.value = 160
        page.press("stop")
        assert page.press("start")["state"] == "playing"
        assert panel.server.width == 160
        until(lambda: len(panel.client.recent(5).rows("frames")) > 20)
        assert panel.client.url == panel.server.url
        page.press("stop")


def test_the_clients_of_a_panel_are_known_as_its_own_also_the_one_that_start_has_made() -> None:
    with FakeServer() as server, FakeClient(server.url) as client:
        panel = Panel(cast(Server, server), cast(Client, client))
        assert client in module.view.with_panel
        client.stop()
        panel.start()
        assert panel.client is not client
        assert panel.client in module.view.with_panel
        panel.stop()
        panel.close()
