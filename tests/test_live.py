"""Live plots without a browser: their numbers against the metrics', what is sent when, and the figure at the end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.figure import Figure
from pages import said
from rawclient import until
from traces import EPOCH, MS, NS, Run, run

import avlab
from avlab.lab.notebook import live as module
from avlab.lab.notebook.live import KINDS, Live, Post, chart
from avlab.measure.numbers import metrics, rates, recent
from avlab.measure.numbers.recent import FOLDS, Recent, numbers
from avlab.measure.record.tables import PACKET_FATES, TABLES
from avlab.measure.record.trace import FrameRow, Recorder, SettingRow, Trace
from avlab.stream.client import Client
from avlab.stream.clock import VirtualClock
from avlab.stream.handle import Handle

RUNS: list[dict[str, Any]] = [
    {},
    {"loss": 0.1, "duplication": 0.05, "jitter_ms": 5, "av_ms": 20},
    {"seconds": 12, "loss": 0.02, "skip": frozenset({30, 31, 90}), "drift": 0.01},
    {"seconds": 0.1, "sound": False},
    {"seconds": 3, "ends_early_ns": 700 * MS},
]


def measured(trace: Trace) -> dict[str, Any]:
    """The same numbers as the plots', by way of the metrics' DataFrames."""
    lost = metrics.loss(trace)
    return {
        "fps": metrics.fps(trace),
        "interval_error": metrics.interval_error(trace),
        "sync": trace.sync[["time", "offset"]] * [1, 1e3],
        "loss": lost * [1, 100, 100],
        "bitrate": metrics.bitrate(trace),
    }


def same(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs, np.float64).T, rtol=0, atol=1e-6)


def as_recorded(trace: Trace) -> Trace:
    """The trace with its rows in the order of time and in batches, as a recorder has them."""
    batches = {}
    for name, table in TABLES.items():
        rows = trace.rows(name)
        rows = rows[np.argsort(np.max([rows[column] for column in table.times], axis=0), kind="stable")]
        batches[name] = [rows[at : at + 500] for at in range(0, len(rows), 500)]
    return Trace(**batches, settings=trace.setting_rows, meta=trace.meta)


# ---- the folds


@pytest.mark.parametrize("settings", RUNS)
def test_the_folds_give_the_metrics_numbers(settings: dict[str, Any]) -> None:
    both = run(**settings)
    for trace in (avlab.join(both.server, both.client), both.client, both.server):
        for kind, table in measured(trace).items():
            same(FOLDS[kind](trace), table)
        for at in ("sent", "complete"):
            same(rates.frame_rate(trace, at), metrics.fps(trace, at))  # type: ignore[arg-type]


def test_a_recovered_packet_was_lost_and_the_classic_wire_cannot_tell() -> None:
    both = run(seconds=3, loss=0.1)
    joined = avlab.join(both.server, both.client)
    packets = joined.rows("packets").copy()
    packets["fate"][np.flatnonzero(packets["fate"] == PACKET_FATES.index("lost"))[::2]] = PACKET_FATES.index(
        "recovered"
    )
    for meta in ({}, {"wire": "classic"}):
        trace = Trace(frames=[joined.rows("frames")], packets=[packets], meta=joined.meta | meta)
        for kind in ("loss", "bitrate"):
            same(FOLDS[kind](trace), measured(trace)[kind])


def test_the_folds_of_nothing_are_empty() -> None:
    nothing = Trace(meta={"side": "client", "epoch_ns": 0})
    assert {kind: fold(nothing).shape[1] for kind, fold in FOLDS.items()} == dict.fromkeys(FOLDS, 0)
    assert numbers(nothing, NS) == recent.Numbers(
        sent_fps=None, received_fps=None, shown_fps=None, offset_ms=None, loss_percent=None, bitrate_kbps=None,
        buffer_ms=None, target_fps=None, late=0,
    )  # fmt: skip


# ---- tails


def test_a_tail_has_all_rows_of_its_time_and_no_others() -> None:
    both = run(seconds=20)
    trace = as_recorded(both.client)
    since_ns = EPOCH + 15 * NS
    tail = trace.tail(since_ns)
    for name, table in TABLES.items():
        whole = trace.rows(name)
        np.testing.assert_array_equal(
            tail.rows(name), whole[np.max([whole[column] for column in table.times], axis=0) >= since_ns]
        )
    assert tail.meta == trace.meta
    assert len(trace.tail(EPOCH).rows("packets")) == len(trace.rows("packets"))
    assert len(trace.tail(EPOCH + 99 * NS).rows("frames")) == 0


def test_a_tail_looks_at_no_batch_but_the_last_ones() -> None:
    batches = as_recorded(run(seconds=20).client)
    looked: list[int] = []

    class Watched(np.ndarray):  # type: ignore[type-arg]
        def __array_finalize__(self, made: object) -> None:
            looked.append(1)

    old = [batch._replace(rows=batch.read().view(Watched)) for batch in batches._batches["packets"][:-3]]
    looked.clear()
    trace = Trace(packets=[*old, *batches._batches["packets"][-3:]], meta=batches.meta)
    trace.tail(EPOCH + 20 * NS - 100 * MS)
    assert not looked


def test_a_tail_has_only_the_settings_of_its_time() -> None:
    rows = [SettingRow(second * NS, "quality", second) for second in range(5)]
    trace = Trace(settings=rows, meta={"side": "client", "epoch_ns": 0})
    assert [row.value for row in trace.tail(3 * NS).setting_rows] == [3, 4]


# ---- kept up to date


def followed(both: Run, *, seconds: float, every_ms: int = 250, until_s: float = 12.0) -> tuple[Recent, Trace, int]:
    """Series made from ever new tails of a run, as live plots do; the whole trace, and the moment, of the last."""
    server, client = as_recorded(both.server), as_recorded(both.client)
    series = Recent(KINDS, seconds=seconds)
    whole, now_ns = avlab.join(server, client), EPOCH
    while now_ns < EPOCH + until_s * NS:
        now_ns += every_ms * MS
        seen = [Trace(**{name: [known(trace, name, now_ns)] for name in TABLES}, meta=trace.meta | {"end_ns": now_ns})
                for trace in (server, client)]  # fmt: skip
        whole = avlab.join(*seen)
        since_ns = now_ns - round(series.reach(now_ns) * NS)
        series.update(avlab.join(seen[0].tail(since_ns - NS), seen[1].tail(since_ns)).tail(since_ns), now_ns)
    return series, whole, now_ns


def known(trace: Trace, name: str, now_ns: int) -> Any:
    """What had been written down by `now_ns`."""
    rows = trace.rows(name)
    return rows[np.max([rows[column] for column in TABLES[name].times], axis=0) <= now_ns]


@pytest.mark.parametrize(
    "settings", [{}, {"loss": 0.05, "jitter_ms": 5, "av_ms": 20}, {"skip": frozenset(range(90, 200))}]
)
@pytest.mark.parametrize("every_ms", [250, 1700])
def test_live_plots_have_the_numbers_of_the_plots_of_the_whole_trace(settings: dict[str, Any], every_ms: int) -> None:
    series, whole, now_ns = followed(run(seconds=12, **settings), seconds=30, every_ms=every_ms)
    now = (now_ns - EPOCH) / NS
    for kind, table in measured(whole).items():
        ours, theirs = series.series[kind], np.asarray(table, np.float64).T
        if kind in ("loss", "bitrate"):  # seconds that were not whole are left out
            theirs = theirs[:, theirs[0] + 1 <= now - (1 if kind == "loss" else 0)]
        assert theirs.shape[1] > 9
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=kind)


def test_only_the_last_seconds_are_kept() -> None:
    series, whole, now_ns = followed(run(seconds=12), seconds=5)
    times = series.series["fps"][0]
    assert times[0] == pytest.approx((now_ns - EPOCH) / NS - 5, abs=0.04)
    all_of_it = FOLDS["fps"](whole)
    np.testing.assert_allclose(series.series["fps"], all_of_it[:, all_of_it[0] >= times[0]], atol=1e-6)
    assert series.reach(now_ns) < 5


@pytest.mark.parametrize(
    ("kinds", "seconds", "words"),
    [(("fps", "colour"), 30, "not 'colour'"), ((), 30, "not none"), (("fps",), 0, "seconds must be more than 0")],
)
def test_what_cannot_be_followed_is_refused(kinds: tuple[str, ...], seconds: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recent(kinds, seconds=seconds)


def test_frames_that_came_too_late_are_counted_for_two_seconds() -> None:
    recorder = Recorder(side="client", epoch_ns=0, clock="one")
    for index, fate in enumerate(("late", "shown", "late", "incomplete", "late")):
        recorder.frame(FrameRow("video", pts_ns=0, timestamp=index, complete_ns=index * NS, fate=fate))
    assert [numbers(recorder.trace(), at * NS).late for at in (2, 4, 6, 7)] == [3, 2, 1, 0]


def test_the_numbers_of_a_run_in_full_swing() -> None:
    both = run(seconds=5, loss=0.1, av_ms=20)
    now_ns = EPOCH + 5 * NS
    seen = numbers(avlab.join(both.server, both.client), now_ns)
    assert seen.sent_fps == pytest.approx(30, abs=0.1)
    assert seen.shown_fps is not None
    assert 5 < seen.shown_fps < 30  # frames that lost a packet are not shown
    assert seen.offset_ms == pytest.approx(20, abs=1)
    assert seen.loss_percent is not None
    assert 2 < seen.loss_percent < 25
    assert seen.bitrate_kbps is not None
    later = numbers(avlab.join(both.server, both.client), now_ns + 9 * NS)
    assert (later.shown_fps, later.offset_ms) == (0, None)


# ---- what is sent


def test_one_message_is_under_way_at_a_time() -> None:
    post = Post()
    assert post.admit(0) is None  # nobody is there
    post.hello(0)
    assert post.admit(0) == 1
    assert post.admit(250 * MS) is None
    post.seen(1, 260 * MS)
    assert post.admit(500 * MS) == 2


def test_a_page_that_is_silent_gets_a_message_a_second_and_then_fewer() -> None:
    post = Post()
    post.hello(0)
    sent = [now_ns for now_ns in range(0, 3600 * NS, 250 * MS) if post.admit(now_ns) is not None]
    assert sent[:5] == [0, NS, 2 * NS, 3 * NS, 4 * NS]
    assert len(sent) < 100
    post.hello(3600 * NS)
    assert post.admit(3600 * NS) is not None


class FakeClient(Handle):
    """Has a record to look at; `joined` is what `trace` and `recent` give."""

    playout_delay = playout_target = 0.1

    def __init__(self, joined: Trace) -> None:
        super().__init__()
        self.trace = joined
        self.fault: Exception | None = None

    def recent(self, seconds: float) -> Trace:
        if self.fault is not None:
            raise self.fault
        return self.trace


class Page:
    """The other end of the plots' comm."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.sent: queue.Queue[tuple[dict[str, Any], list[bytes]]] = queue.Queue()
        self.threads: set[str] = set()
        live.send = self._receive

    def says(self, **word: object) -> None:
        said(self.live, word)

    def _receive(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        self.threads.add(threading.current_thread().name)
        self.sent.put((content, buffers))


@pytest.fixture
def client() -> Iterator[FakeClient]:
    both = run(seconds=5)
    with FakeClient(avlab.join(both.server, both.client)) as client:
        yield client
    assert not [thread for thread in threading.enumerate() if thread.name == "avlab-live"]


def shown(client: FakeClient, **settings: Any) -> tuple[Live, Page]:
    clock = VirtualClock()
    clock.sleep_until(EPOCH + 5 * NS)
    live = Live(cast(Client, client), clock=clock, **settings)
    return live, Page(live)


def test_the_page_gets_every_plots_points_in_one_binary_message(client: FakeClient) -> None:
    live, page = shown(client)
    page.says(hello=True)
    content, (data,) = page.sent.get(timeout=60)
    assert [each["kind"] for each in content["charts"]] == list(KINDS)
    assert (content["number"], content["now"], content["seconds"]) == (1, 5.0, 30)
    points = np.frombuffer(data, "<f4")
    for each in content["charts"]:
        size = each["columns"] * each["points"]
        here, points = points[:size].reshape(each["columns"], -1), points[size:]
        expected = live.recent.series[each["kind"]].copy()
        expected[0] -= content["now"]
        np.testing.assert_allclose(here, expected, rtol=1e-5, atol=1e-5)
    assert len(points) == 0
    assert page.threads == {"avlab-live"}


def test_nothing_is_sent_or_folded_before_a_page_is_there(client: FakeClient) -> None:
    client.fault = AssertionError("nobody looks")
    live, page = shown(client)
    looks = threading.Event()
    admit = live.post.admit

    def noted(now_ns: int) -> int | None:
        looks.set()
        return admit(now_ns)

    live.post.admit = noted  # type: ignore[method-assign]
    assert looks.wait(60)
    assert page.sent.empty()
    client.fault = None


def test_the_last_picture_stays_and_a_page_that_comes_again_gets_it() -> None:
    both = run(seconds=5)
    with FakeClient(avlab.join(both.server, both.client)) as client:
        _, page = shown(client)
    content, buffers = page.sent.get(timeout=60)
    assert content["number"] is None
    page.says(hello=True)
    assert page.sent.get(timeout=60) == (content, buffers)


def test_what_fails_is_told_by_the_page_and_the_stream_goes_on(client: FakeClient) -> None:
    live, page = shown(client)
    client.fault = LookupError("no such column")
    page.says(hello=True)
    content, _ = page.sent.get(timeout=60)
    assert content["error"] == "The live plots failed: no such column"
    assert live.error is client.fault
    assert client.running


def test_closing_ends_the_thread_and_not_the_stream(client: FakeClient) -> None:
    live, _ = shown(client)
    live.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "avlab-live"]
    assert client.running


def test_the_figure_is_plain_matplotlib_and_can_be_saved(client: FakeClient, tmp_path: Path) -> None:
    live, _ = shown(client, kinds=("fps", "bitrate", "sync"))
    figure = live.figure()
    assert isinstance(figure, Figure)
    assert sum(ax.axison for ax in figure.axes) == 3
    figure.savefig(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000
    line = figure.axes[0].lines[0]
    same(np.stack([line.get_xdata(), line.get_ydata()]), metrics.fps(client.trace))  # type: ignore[list-item]


# ---- how a plot looks


@pytest.mark.parametrize("kind", KINDS)
def test_every_plot_has_words_and_a_range_with_and_without_points(kind: str) -> None:
    joined = avlab.join(*(lambda both: (both.server, both.client))(run(seconds=3)))
    empty = chart(kind, np.empty((3 if kind in ("loss", "bitrate") else 2, 0)))
    full = chart(kind, FOLDS[kind](joined), target=30.0)
    for made in (empty, full):
        low, high = made["range"]
        assert np.isfinite([low, high]).all()
        assert low < high
        assert made["title"]
        assert made["unit"]
    assert empty["value"] == ""
    assert full["value"].endswith((made["unit"], "packets"))


def test_the_bands_are_the_plots() -> None:
    points = np.array([[0.0, 1.0], [29.0, 31.0]])
    assert chart("fps", points, target=25.0)["bands"][0][:2] == [24.5, 25.5]
    assert [band[:2] for band in chart("sync", points)["bands"]] == [[-185, 90], [-125, 45]]
    with pytest.raises(ValueError, match="a live plot is one of fps"):
        chart("colour", points)


def test_a_few_values_far_out_do_not_flatten_the_others() -> None:
    errors = np.zeros((2, 1000))
    errors[1, :5] = 900
    low, high = chart("interval_error", errors)["range"]
    assert high - low < 50


def test_live_plots_of_a_client_that_does_not_run_are_refused() -> None:
    client = FakeClient(run().client)
    with pytest.raises(RuntimeError, match=r"not playing, so there is nothing to follow.*avlab.plots.page"):
        avlab.plots.live(cast(Client, client))
    with client, pytest.raises(ValueError, match="kinds must be of fps, interval_error"):
        avlab.plots.live(cast(Client, client), kinds=("colour",))


def test_live_plots_display_themselves(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[Any] = []
    monkeypatch.setattr(module, "get_ipython", lambda: object())
    monkeypatch.setattr(module, "display", displayed.append)
    assert avlab.plots.live(cast(Client, client)) is displayed[0]


@pytest.mark.slow
def test_a_real_clients_recent_moments_are_those_of_its_trace(clip: Path) -> None:
    with avlab.Server(clip) as server, avlab.Client(server.url, audio="null") as client:
        until(lambda: len(client.recent(60).rows("sync")) > 60)
    whole = client.trace
    for kind, table in measured(whole).items():
        same(FOLDS[kind](client.recent(60)), table)
    late = FOLDS["fps"](client.recent(60))
    assert late.shape[1] > 60
    assert client.recent(0.0).rows("packets").size == 0
