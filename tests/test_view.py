"""The live view without a browser: what may be sent when, in literal times, and a thread whose `send` is faked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import pytest

from avlab.lab import view as module
from avlab.lab.view import MOST_UNDER_WAY, Flow, View
from avlab.stream.client import Client
from avlab.stream.clock import VirtualClock
from avlab.stream.tap import Tap
from avlab.stream.worker import Handle
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
    moments = [now_ns for now_ns in moments if now_ns > 500 * MS]
    assert {later - now for now, later in pairwise(moments)} == {90 * MS}
    assert len(moments) == 106  # from 510 ms on, when a word is overdue


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
    assert len(offer(flow, fps=30, start_ns=60 * NS, seconds=0.5)) == 15


def test_a_page_that_is_gone_for_good_costs_next_to_nothing() -> None:
    flow = greeted()
    assert len(offer(flow, fps=30, start_ns=0, seconds=3600)) < 1500  # of 108,000
    flow.hello(3601 * NS)
    assert len(offer(flow, fps=30, start_ns=3601 * NS, seconds=0.5)) == 15


# ---- the widget and its thread


class FakeClient(Handle):
    """Runs, and has a tap, as far as a view can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.taps: list[Tap] = []

    def tap(self) -> Tap:
        self.taps.append(Tap())
        return self.taps[-1]

    def untap(self, tap: Tap) -> None:
        if tap in self.taps:
            self.taps.remove(tap)
        tap.close()

    def show(self, number: int) -> bytes:
        """Present a picture, number/30 s into the clip; its bytes."""
        jpeg = b"picture %d" % number
        self.taps[0].put(Frame(number * 3000, number * NS // 30, jpeg, len(jpeg), 1, 0, 0, 0))
        return jpeg


class Page:
    """The other end of a view's comm: what was sent to it, and for each picture taken whether it was sent."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.sent: queue.Queue[tuple[dict[str, Any], list[bytes]]] = queue.Queue()
        self.threads: set[str] = set()
        self._decided: queue.Queue[int | None] = queue.Queue()
        self._admit = view._flow.admit
        view._flow.admit = self._note  # type: ignore[method-assign]
        view.send = self._receive

    def decision(self) -> int | None:
        return self._decided.get(timeout=10)

    def says(self, **word: object) -> None:
        self.view._handle_custom_msg(word, [])

    def _note(self, now_ns: int) -> int | None:
        self._decided.put(number := self._admit(now_ns))
        return number

    def _receive(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        self.threads.add(threading.current_thread().name)
        self.sent.put((content, buffers))


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
    _, page = shown(client)
    page.says(hello=True)
    for number in (0, 6):
        jpeg = client.show(number)
        content, buffers = page.sent.get(timeout=10)
        assert buffers == [jpeg]
        assert content["pts"] == pytest.approx(number / 30)
    assert content["number"] == 2
    assert page.threads == {"avlab-view"}


def test_what_the_page_cannot_take_is_dropped_and_never_queued(client: FakeClient) -> None:
    clock = VirtualClock()
    _, page = shown(client, clock)
    client.show(0)
    assert page.decision() is None  # no hello yet
    page.says(hello=True)
    for number in range(1, 31):
        client.show(number)
        assert page.decision() == (number if number <= MOST_UNDER_WAY else None)
    page.says(seen=MOST_UNDER_WAY)
    jpeg = client.show(31)
    assert page.decision() == MOST_UNDER_WAY + 1
    sent = [page.sent.get(timeout=10) for _ in range(MOST_UNDER_WAY + 1)]
    assert sent[-1][1] == [jpeg]
    assert page.sent.empty()


def test_while_the_page_is_not_heard_the_thread_trickles(client: FakeClient) -> None:
    clock = VirtualClock()
    _, page = shown(client, clock)
    page.says(hello=True)
    for number in range(60):
        clock.sleep_until(number * 50 * MS)
        client.show(number)
        # After half a second, every second picture: they come 50 ms apart.
        assert (page.decision() is not None) == (number <= 10 or number % 2 == 0)


def test_words_that_are_not_understood_are_passed_over(client: FakeClient) -> None:
    _, page = shown(client)
    page.says(other=1)
    client.show(0)
    assert page.decision() is None


def test_the_thread_ends_with_the_client() -> None:
    with FakeClient() as client:
        _, page = shown(client)
        assert len(view_threads()) == 1
        page.says(hello=True)
        client.show(0)
        page.sent.get(timeout=10)
    assert view_threads() == []
    assert client.taps == []


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


def test_what_fails_in_sending_is_raised_by_the_client() -> None:
    client = FakeClient().start()
    view, page = shown(client)

    def broken(content: object, buffers: object) -> None:
        raise ConnectionError("the page's connection is gone")

    view.send = broken
    page.says(hello=True)
    client.show(0)
    with pytest.raises(ConnectionError, match="gone"):
        client.wait(10)
    client.stop()


def test_the_saved_notebook_holds_no_picture(client: FakeClient) -> None:
    view, page = shown(client)
    before = view.get_state()
    page.says(hello=True)
    client.show(0)
    page.sent.get(timeout=10)
    assert view.get_state() == before


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


@pytest.mark.parametrize("state", ["never started", "stopped"])
def test_a_client_that_does_not_play_cannot_be_viewed(state: str) -> None:
    client = FakeClient()
    if state == "stopped":
        client.start().stop()
    with pytest.raises(RuntimeError, match="not playing"):
        module.view(cast(Client, client))
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
