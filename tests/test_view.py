"""The live view without a browser: what may be sent when, in literal times, and a thread whose `send` is faked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import traces
from pages import said
from rawclient import until

from avlab.lab.notebook import hearing
from avlab.lab.notebook import view as module
from avlab.lab.notebook.flow import BUSY_GONE_NS, COAST_BYTES, GONE_NS, MOST_UNDER_WAY, Flow, PageClock
from avlab.lab.notebook.view import AHEAD_NS, ENDED, ENDED_BESIDE_PANEL, View, follow, with_panel
from avlab.measure.numbers import metrics
from avlab.measure.record.trace import Trace
from avlab.stream.client import Client
from avlab.stream.clock import MonotonicClock, VirtualClock
from avlab.stream.handle import Handle
from avlab.stream.playing.tap import PictureVerdict, Tap
from avlab.timing.jitterbuffer import Frame
from avlab.wire.units import NS

MS = 1_000_000


def offer(flow: Flow, *, fps: int, start_ns: int, seconds: float) -> list[int]:
    """Offer pictures at a rate; the moments, in ns, at which one was admitted."""
    moments = (start_ns + i * NS // fps for i in range(round(seconds * fps)))
    return [now_ns for now_ns in moments if flow.admit(now_ns) is not None]


def greeted(now_ns: int = 0) -> Flow:
    flow = Flow()
    flow.hello(now_ns)
    return flow


# ---- what may be sent


def test_nothing_is_sent_before_the_page_says_hello() -> None:
    flow = Flow()
    assert offer(flow, fps=30, start_ns=0, seconds=60) == []
    flow.hello(60 * NS)
    assert flow.admit(60 * NS) == 1


def test_no_more_than_the_window_is_under_way() -> None:
    flow = greeted()
    assert [flow.admit(0) for _ in range(MOST_UNDER_WAY + 2)] == [*range(1, MOST_UNDER_WAY + 1), None, None]


@pytest.mark.parametrize(
    ("acknowledged", "room"),
    [(1, 1), (13, 13), (MOST_UNDER_WAY, MOST_UNDER_WAY), (10**9, MOST_UNDER_WAY), (0, 0), (-5, 0)],
)
def test_an_acknowledgement_makes_room_for_as_many_pictures_as_it_covers(acknowledged: int, room: int) -> None:
    flow = greeted()
    for _ in range(MOST_UNDER_WAY):
        flow.admit(0)
    flow.acknowledge(acknowledged, MS)
    assert sum(flow.admit(MS) is not None for _ in range(2 * MOST_UNDER_WAY)) == room


def test_an_old_acknowledgement_takes_no_room_back() -> None:
    flow = greeted()
    for _ in range(MOST_UNDER_WAY):
        flow.admit(0)
    flow.acknowledge(20, MS)
    flow.acknowledge(5, MS)
    assert sum(flow.admit(MS) is not None for _ in range(2 * MOST_UNDER_WAY)) == MOST_UNDER_WAY


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_a_page_that_keeps_up_gets_every_picture(fps: int) -> None:
    """The page reports 250 ms after the first picture since its last report; a word is 30 ms under way."""
    flow, way_ns = greeted(), 30 * MS
    sent = [i * NS // fps for i in range(10 * fps)]
    arrivals = [now_ns + way_ns for now_ns in sent]
    reports: list[tuple[int, int]] = []  # (when it leaves the page, how many pictures had come by then)
    while seen := sum(a <= reports[-1][0] for a in arrivals) if reports else 1:
        if seen >= len(arrivals):
            break
        due_ns = arrivals[seen if reports else 0] + 250 * MS
        reports.append((due_ns, sum(a <= due_ns for a in arrivals)))
    for number, now_ns in enumerate(sent, 1):
        while reports and reports[0][0] + way_ns <= now_ns:
            flow.acknowledge(reports.pop(0)[1], now_ns)
        assert flow.admit(now_ns) == number


def test_without_a_word_pictures_trickle_at_some_ten_a_second() -> None:
    moments = offer(greeted(), fps=100, start_ns=0, seconds=10)
    assert moments[:MOST_UNDER_WAY] == [i * 10 * MS for i in range(MOST_UNDER_WAY)]
    moments = [now_ns for now_ns in moments if now_ns > 300 * MS]
    assert {later - now for now, later in pairwise(moments)} == {90 * MS}
    assert len(moments) == 108  # from 310 ms on, when a word is overdue


def test_a_word_ends_the_trickle() -> None:
    flow = greeted()
    before = offer(flow, fps=30, start_ns=0, seconds=5)
    flow.acknowledge(len(before), 5 * NS)
    assert len(offer(flow, fps=30, start_ns=5 * NS, seconds=0.5)) == 15


def test_the_trickle_begins_only_when_a_word_is_due() -> None:
    flow = greeted()
    number = flow.admit(0)
    assert number is not None
    flow.acknowledge(number, 250 * MS)
    # Nothing is under way, so the page owes no word, however long the stream pauses.
    assert flow.silent_ns(60 * NS) == 0
    assert len(offer(flow, fps=30, start_ns=60 * NS, seconds=0.5)) == 15


def test_a_page_that_is_gone_for_good_costs_next_to_nothing() -> None:
    flow = greeted()
    assert len(offer(flow, fps=30, start_ns=0, seconds=3600)) < 1500  # of 108,000
    flow.hello(3601 * NS)
    assert len(offer(flow, fps=30, start_ns=3601 * NS, seconds=0.5)) == 15


def test_a_cell_that_keeps_the_hello_waiting_gets_ten_pictures_a_second_blindly() -> None:
    flow = Flow(0)
    moments = [i * 10 * MS for i in range(200) if flow.admit(i * 10 * MS, busy=True) is not None]
    assert moments[0] == 310 * MS
    assert {later - now for now, later in pairwise(moments)} == {90 * MS}
    assert flow.admit(3 * NS) is None  # the cell has ended: now the page will speak


def test_a_page_that_was_there_is_sent_all_while_a_cell_keeps_its_words_waiting_up_to_a_limit() -> None:
    flow, size = greeted(), 20_000
    sent = sum(flow.admit(i * NS // 30, size=size, busy=True) is not None for i in range(30 * 60))
    full = MOST_UNDER_WAY + COAST_BYTES // size
    assert full < sent < full + 10 * 40


def test_a_page_that_nobody_looks_at_or_that_has_left_is_sent_nothing() -> None:
    flow = greeted()
    flow.acknowledge(0, 0, visible=False)
    assert offer(flow, fps=30, start_ns=0, seconds=10) == []
    flow.acknowledge(0, 10 * NS, visible=True)
    assert flow.admit(10 * NS) == 1
    flow.bye()
    assert offer(flow, fps=30, start_ns=10 * NS, seconds=10) == []
    assert flow.admit(21 * NS, busy=True) is None


def test_a_silent_page_is_taken_for_gone_later_when_a_cell_runs() -> None:
    flow = greeted()
    assert not flow.gone(NS * 1000)  # nothing was sent, so nothing is owed
    flow.expect(0)
    assert [flow.gone(ns) for ns in (GONE_NS, GONE_NS + 1)] == [False, True]
    assert [flow.gone(ns, busy=True) for ns in (BUSY_GONE_NS, BUSY_GONE_NS + 1)] == [False, True]
    flow.acknowledge(0, GONE_NS)
    assert not flow.gone(2 * GONE_NS)


# ---- two clocks


def test_the_shortest_round_trip_tells_how_the_clocks_stand() -> None:
    clock, zero = PageClock(), 5 * NS  # the page's clock began at our 5 s
    assert not clock.known
    with pytest.raises(ValueError, match="round trip"):
        clock.to_ns(0)
    for out, back in ((80, 10), (2, 4), (10, 90)):  # ms on the way
        came = 1000.0
        clock.trip(zero + round(came - out) * MS, came, came + 200, zero + round(came + 200 + back) * MS)
    assert clock.error_ns == 3 * MS
    assert clock.to_ns(1500) == zero + 1500 * MS + 1 * MS  # half of the difference between the two ways


@pytest.mark.parametrize(("came", "left", "heard_ns"), [(10, 5, 20 * MS), (10, 50, 30 * MS)])
def test_a_round_trip_that_cannot_have_been_is_passed_over(came: float, left: float, heard_ns: int) -> None:
    clock = PageClock()
    clock.trip(0, came, left, heard_ns)
    assert not clock.known
    assert clock.error_ns is None


# ---- the widget and its thread


class Presented:
    """As much of a client's presentation as a view looks at."""

    sounding = None
    offset_ns: int | None = 12 * MS
    timed = True
    target_fps: float | None = 30.0


class FakeClient(Handle):
    """Runs, and has a tap, as far as a view can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = MonotonicClock()
        self.taps: list[Tap] = []
        self.verdicts: queue.Queue[PictureVerdict] = queue.Queue()
        self.presentation = Presented()
        self.trace = traces.run(seconds=5, loss=0.1, sound=False).client

    def recent(self, seconds: float, *, joined: bool = True) -> Trace:
        return self.trace

    def tap(self) -> Tap:
        self.taps.append(Tap(lambda _, verdict: self.verdicts.put(verdict)))
        return self.taps[-1]

    def untap(self, tap: Tap) -> None:
        if tap in self.taps:
            self.taps.remove(tap)
        tap.close()

    def show(self, number: int, due_ns: int | None = None) -> bytes:
        """Present a picture, number/30 s into the clip; its bytes."""
        jpeg = b"picture %d" % number
        self.taps[0].put(Frame(number * 3000, number * NS // 30, jpeg, len(jpeg), 1, 0, 0, 0), due_ns)
        return jpeg

    def fails(self, error: Exception | None) -> None:
        self._error = error

    def verdict(self) -> PictureVerdict:
        return self.verdicts.get(timeout=60)


class Page:
    """The other end of a view's comm: what was sent to it."""

    def __init__(self, view: View, name: str = "page") -> None:
        self.view, self.name = view, name
        self.frames: queue.Queue[tuple[dict[str, Any], list[bytes]]] = queue.Queue()
        self.states: queue.Queue[dict[str, Any]] = queue.Queue()
        self.threads: set[str] = set()
        view.send = self._receive

    def frame(self) -> tuple[dict[str, Any], list[bytes]]:
        return self.frames.get(timeout=60)

    def says(self, **word: object) -> None:
        said(self.view, {"page": self.name, **word})

    def _receive(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self.threads.add(threading.current_thread().name)
        if content["kind"] == "frame":
            assert buffers is not None
            self.frames.put((content, buffers))
        else:
            self.states.put(content)


@pytest.fixture
def client() -> Iterator[FakeClient]:
    with FakeClient() as client:
        yield client


def shown(client: FakeClient, clock: VirtualClock | None = None) -> tuple[View, Page]:
    view = View(cast(Client, client), clock=clock or VirtualClock())
    return view, Page(view)


def view_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "avlab-view"]


def test_the_page_gets_the_jpeg_as_it_came_from_a_thread_of_the_view(client: FakeClient) -> None:
    _, page = shown(client, VirtualClock(NS))
    page.says(hello=True)
    page.threads.clear()
    for number, due_ns in ((0, None), (6, NS + 50 * MS)):
        jpeg = client.show(number, due_ns)
        content, buffers = page.frame()
        assert buffers == [jpeg]
        assert content["pts"] == pytest.approx(number / 30)
        assert content["wait"] == (None if due_ns is None else 50.0)
    assert content["number"] == 2
    assert page.threads == {"avlab-view"}


def test_a_page_gets_pictures_before_they_are_due_but_not_long_before(client: FakeClient) -> None:
    clock = VirtualClock(NS)
    view, page = shown(client, clock)
    assert not client.taps[-1].ahead
    page.says(hello=True)
    assert client.taps[-1].ahead
    client.show(0, NS + AHEAD_NS + 500 * MS)
    until(lambda: not client.taps[0].held)
    assert page.frames.empty()
    clock.sleep_until(NS + 501 * MS)
    assert page.frame()[0]["wait"] == 399.0
    client.show(1, 9 * NS)
    client.show(2, NS + 600 * MS)  # the delay has come down
    assert [page.frame()[0]["number"] for _ in range(2)] == [2, 3]
    page.says(seen=3, verdicts=[])
    client.show(3, 9 * NS)
    until(lambda: not client.taps[0].held)
    page.says(bye=True)
    assert not client.taps[-1].ahead
    view.close()
    verdict = client.verdict()
    assert (verdict.frame.ticks, verdict.shown_ns) == (9000, None)


def test_what_the_page_cannot_take_is_dropped_and_never_queued(client: FakeClient) -> None:
    _, page = shown(client)
    client.show(0)
    assert client.verdict().shown_ns is None  # no hello yet
    page.says(hello=True)
    for number in range(1, 31):
        client.show(number)
        if number <= MOST_UNDER_WAY:
            assert page.frame()[0]["number"] == number
        else:
            assert client.verdict().frame.ticks == number * 3000
    page.says(seen=MOST_UNDER_WAY)
    jpeg = client.show(31)
    content, buffers = page.frame()
    assert (content["number"], buffers) == (MOST_UNDER_WAY + 1, [jpeg])
    assert page.frames.empty()


def test_what_the_page_has_painted_when_goes_to_the_record_on_its_clock(client: FakeClient) -> None:
    clock = VirtualClock(100 * NS)
    _, page = shown(client, clock)
    page.says(hello=True)
    for number in range(3):
        client.show(number)
        page.frame()
    clock.sleep_until(100 * NS + 500 * MS)
    # The page's clock shows 7,000 ms less; the first picture came 10 ms after it was sent, the word takes 10 ms.
    echo = [100 * NS / MS, 93_010.0]
    page.says(seen=3, echo=echo, now=93_490.0, verdicts=[[1, 93_040.0, 0.005], [2, None, None], [9, 1.0, None]])
    first, second = client.verdict(), client.verdict()
    assert (first.frame.ticks, first.shown_ns, first.heard_ns) == (0, 100 * NS + 40 * MS, 5 * MS)
    assert (second.frame.ticks, second.shown_ns) == (3000, None)
    assert client.verdicts.empty()
    assert client.taps[-1].decides


def test_a_page_that_is_loaded_again_has_a_clock_of_its_own(client: FakeClient) -> None:
    clock = VirtualClock(100 * NS)
    view, page = shown(client, clock)
    again = Page(view, "loaded again")
    for each, begun in ((page, 60_000.0), (again, 1000.0)):  # its performance.now() when a picture comes, 5 ms old
        each.says(hello=True)
        client.show(0)
        content, _ = again.frame()
        sent_ns = clock.now_ns()
        clock.sleep_until(sent_ns + 100 * MS)
        verdicts = [[content["number"], begun + 20, None]]
        each.says(seen=content["number"], echo=[content["sent"], begun], now=begun + 90, verdicts=verdicts)
        assert client.verdict().shown_ns == sent_ns + 25 * MS
        each.says(bye=True)


def test_of_two_pages_the_first_is_recorded_and_the_next_one_when_it_leaves(client: FakeClient) -> None:
    view, page = shown(client)
    other = Page(view, "other")
    for each in (page, other):
        each.says(hello=True)
    client.show(0)
    other.frame()
    other.says(seen=1, verdicts=[[1, 5.0, None]])
    assert client.verdicts.empty()
    page.says(seen=1, verdicts=[[1, 5.0, None]])
    assert client.verdict().frame.ticks == 0
    page.says(bye=True)
    assert not client.taps[-1].decides
    page.says(seen=1, verdicts=[])  # overtaken by its own goodbye
    assert not client.taps[-1].decides
    other.says(seen=1, verdicts=[])
    assert client.taps[-1].decides


def test_a_page_that_falls_silent_is_let_go_and_taken_back(client: FakeClient) -> None:
    clock = VirtualClock()
    _, page = shown(client, clock)
    page.says(hello=True)
    client.show(0)
    page.frame()
    clock.sleep_until(GONE_NS + 2 * MS)
    client.show(1)
    page.frame()
    assert not client.taps[-1].decides
    page.says(seen=2, verdicts=[[1, 1.0, None]])
    assert client.taps[-1].decides


def test_a_cell_that_keeps_the_page_waiting_leaves_the_record_to_playout(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.cells, "running", True)
    clock = VirtualClock()
    _, page = shown(client, clock)
    page.says(hello=True)
    for number in range(MOST_UNDER_WAY * 3):  # all of them, although no word comes
        clock.sleep_until(number * NS // 30)
        client.show(number)
        page.frame()
    assert not client.taps[-1].decides
    assert client.taps[-1].resigned_shown
    page.says(seen=60, verdicts=[])
    assert client.taps[-1].decides


def test_words_that_are_not_understood_are_passed_over(client: FakeClient) -> None:
    view, page = shown(client)
    for word in ({"other": 1}, {"page": 5}, {}):
        said(view, word)
    said(view, "text")
    client.show(0)
    assert client.verdict().shown_ns is None
    assert page.frames.empty()


def test_the_page_is_told_how_things_stand(client: FakeClient) -> None:
    _, page = shown(client)
    page.says(hello=True)
    state = page.states.get(timeout=60)
    assert state["to"] == "page"
    assert (state["offset"], state["audio"], state["note"]) == (12.0, None, "")
    assert state["where"] == "no sound in this stream"


def test_the_page_is_told_the_loss_that_the_plots_have(client: FakeClient) -> None:
    _, page = shown(client, VirtualClock(traces.EPOCH + 4 * NS))
    page.says(hello=True)
    by_second = metrics.loss(client.trace).set_index("time")["packet_loss"]
    assert by_second[2.0] > 0
    assert page.states.get(timeout=60)["loss"] == pytest.approx(100 * by_second[2.0])


def test_the_thread_ends_with_the_client_and_the_page_is_told() -> None:
    with FakeClient() as client:
        _, page = shown(client)
        assert len(view_threads()) == 1
        page.says(hello=True)
        client.show(0)
        page.frame()
    assert view_threads() == []
    assert client.taps == []
    notes = [state["note"] for state in page.states.queue]
    assert notes[-1] == ENDED
    page.says(hello=True)  # a page that is loaded again afterwards
    assert page.states.queue[-1]["note"] == ENDED


def test_the_thread_ends_when_the_stream_does(client: FakeClient) -> None:
    shown(client)
    thread = view_threads()[0]
    client.taps[0].close()
    thread.join(10)
    assert not thread.is_alive()
    assert client.running


def test_the_thread_ends_when_the_widget_is_closed(client: FakeClient) -> None:
    view, _ = shown(client)
    view.close()
    assert view_threads() == []
    assert client.taps == []
    assert client.running
    view.close()


def test_a_view_shows_the_client_that_comes_after_the_one_that_has_ended() -> None:
    with FakeClient() as old, FakeClient() as new:
        _, page = shown(old)
        page.says(hello=True)
        old.show(0)
        page.frame()
        old.stop()
        follow(cast(Client, new), cast(Client, old))  # none is of this one
        follow(cast(Client, old), cast(Client, new))
        assert new.taps[-1].decides
        jpeg = new.show(1)
        content, buffers = page.frame()
        assert (content["number"], buffers) == (2, [jpeg])
        page.says(seen=2, verdicts=[[1, 1.0, None], [2, 2.0, None]])
        assert new.verdict().frame.ticks == 3000
        assert new.verdicts.empty()
    assert not view_threads()


def test_what_fails_in_sending_is_raised_by_the_client() -> None:
    client = FakeClient().start()
    view, page = shown(client)
    page.says(hello=True)

    def broken(content: object, buffers: object = None) -> None:
        raise ConnectionError("the page's connection is gone")

    view.send = broken
    client.show(0)
    with pytest.raises(ConnectionError, match="gone"):
        client.wait(60)
    client.stop()


def test_the_saved_notebook_holds_no_picture(client: FakeClient) -> None:
    view, page = shown(client)
    before = view.get_state()
    page.says(hello=True)
    client.show(0)
    page.frame()
    assert view.get_state() == before


def test_the_page_s_code_stays_small() -> None:
    folder = Path(module.__file__).parent
    assert sum((folder / name).stat().st_size for name in ("view.js", "view.css")) < 20_000


# ---- on the page


class Shell:
    execution_count = 1


def test_a_view_displays_itself_once_a_cell(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    displayed = []
    shell = Shell()
    monkeypatch.setattr(module, "get_ipython", lambda: shell)
    # IPython asks an object to display itself, and a bundle that is raw goes to the page.
    monkeypatch.setattr(module, "display", lambda it, **raw: displayed.append(it) if raw else it._ipython_display_())
    made = module.view(cast(Client, client))
    made._ipython_display_()  # the cell's last line
    assert len(displayed) == 1
    assert displayed[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    shell.execution_count = 2
    made._ipython_display_()
    assert len(displayed) == 2


def test_outside_a_notebook_nothing_is_displayed(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(module.view(cast(Client, client)), View)
    assert capsys.readouterr().out == ""


def test_a_client_that_was_never_started_cannot_be_viewed() -> None:
    with pytest.raises(RuntimeError, match=r"start\(\)"):
        module.view(cast(Client, FakeClient()))


@pytest.mark.parametrize(
    ("error", "note"), [(None, ENDED), (ConnectionError("the server is gone"), "The server is gone.")]
)
def test_a_view_of_a_client_that_has_stopped_says_so(error: Exception | None, note: str) -> None:
    client = FakeClient().start()
    client.stop()
    client.fails(error)
    page = Page(module.view(cast(Client, client)))
    page.says(hello=True)
    assert page.states.get(timeout=60)["note"] == note
    assert view_threads() == []
    assert client.taps == []


def test_only_beside_a_panel_a_view_that_has_ended_speaks_of_start() -> None:
    notes = []
    for panel in (False, True):
        with FakeClient() as client:
            if panel:
                with_panel.add(cast(Client, client))
            _, page = shown(client)
            page.says(hello=True)
            client.show(0)
            page.frame()
        notes.append(page.states.queue[-1]["note"])
    assert notes == [ENDED, ENDED_BESIDE_PANEL]
    assert ["Start" in note for note in notes] == [False, True]


def test_a_word_for_the_sound_that_is_none_is_refused(client: FakeClient) -> None:
    with pytest.raises(ValueError, match="'auto', 'browser', 'speaker' or 'none', not 'loud'"):
        module.view(cast(Client, client), sound=cast(Any, "loud"))
    assert view_threads() == []


def test_what_a_page_says_goes_where_jupyterlab_sent_it(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from ipykernel.comm.comm import BaseComm

    monkeypatch.setattr(BaseComm, "_reply_subshell_for", lambda *_: None, raising=False)  # all to the main shell
    shown(client)
    route: Any = BaseComm._reply_subshell_for
    assert route(None, {}, "a subshell") == "a subshell"


def test_a_kernel_without_that_private_name_is_left_alone(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from ipykernel.comm.comm import BaseComm

    monkeypatch.delattr(BaseComm, "_reply_subshell_for", raising=False)
    shown(client)
    assert not hasattr(BaseComm, "_reply_subshell_for")


class Subshells:
    """A shell whose kernel has subshells, or none."""

    def __init__(self, *, subshells: bool) -> None:
        self.kernel = type("Kernel", (), {"_supports_kernel_subshells": subshells})()
        self.execution_count = 3
        self.events = self
        self.told: dict[str, Any] = {}

    def register(self, name: str, act: Any) -> None:
        self.told[name] = act


@pytest.mark.parametrize("subshells", [True, False])
def test_whether_sliders_wait_is_seen_from_where_the_page_s_words_come(
    subshells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Subshells(subshells=subshells)
    monkeypatch.setattr(hearing, "get_ipython", lambda: shell)
    cells = hearing.Cells()
    assert cells.sliders_wait() is not subshells
    beside = threading.Thread(target=cells.word)
    beside.start()
    beside.join(60)
    assert not cells.sliders_wait()
    cells.word()  # on the very thread that runs cells
    assert cells.sliders_wait()


def test_a_cell_that_runs_is_known_from_begin_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Subshells(subshells=True)
    monkeypatch.setattr(hearing, "get_ipython", lambda: shell)
    cells = hearing.Cells()
    cells.watch()
    cells.watch()
    assert cells.running  # it is asked for within one
    shell.told["post_run_cell"]()
    assert not cells.running
    shell.told["pre_run_cell"]()
    assert cells.running


def test_without_a_kernel_nothing_is_heard_beside_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "get_ipython", lambda: None)
    cells = hearing.Cells()
    cells.watch()
    assert not cells.running
    assert cells.sliders_wait()
    assert isinstance(module.sliders_wait(), bool)
