"""Plots of networks: each draws what the folds say, names its units, says when there is nothing; the recorded runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traces
from matplotlib.figure import Figure

import avlab
from avlab.lab.plots import networks as network_plots
from avlab.lab.plots import runs as plots
from avlab.lab.plots.drawing import Plot
from avlab.measure.numbers import adaptation, metrics, network
from avlab.measure.record.join import join
from avlab.measure.record.trace import Recorder, Trace
from avlab.network.settings import Network

DATA = Path(__file__).parents[1] / "data"
RECORDED = ("4g", "bottleneck", "classroom", "long-haul")

ONE: dict[str, Callable[[Any], Figure]] = {
    "raster": plots.raster,
    "delays": plots.delays,
    "adaptation": plots.adaptation,
    "reports": plots.reports,
    "real_against_simulated": lambda trace: plots.real_against_simulated(trace, trace),
}
SEVERAL: dict[str, Callable[[Any], Figure]] = {"frame_loss": plots.frame_loss, "playout": plots.playout}
ALL = ONE | {name: (lambda trace, draw=draw: draw({"a run": trace})) for name, draw in SEVERAL.items()}


@cache
def recorded(name: str) -> Trace:
    return Trace.load(DATA / f"{name}.avtrace")


@cache
def simulated(seconds: float = 10, *, playout_delay: float = 0.1, **net: Any) -> Trace:
    through = Network(**net)
    return avlab.simulate(
        DATA / "count.mp4", seconds=seconds, width=400, network=through, playout_delay=playout_delay, work=0
    )


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def said(figure: Figure) -> str:
    assert isinstance(figure, Plot)
    return figure.described()


# ---- what all have in common


@pytest.mark.parametrize("name", ALL)
def test_it_shows_itself_with_its_units_large_enough_and_in_words(name: str) -> None:
    figure = ALL[name](recorded("classroom"))
    assert isinstance(figure, Plot)
    assert figure._repr_png_().startswith(b"\x89PNG")
    sizes = [
        text.get_fontsize()
        for ax in figure.axes
        for text in (*ax.texts, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels())
        if text.get_text()
    ]
    assert min(float(size) for size in sizes) >= 13
    labels = " ".join(label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel()))
    assert any(unit in labels for unit in ("(s)", "(%)", "(ms)", "packet, counted"))
    assert title(figure)
    assert title(figure) in said(figure)
    left = next(text for text in figure.axes[0].get_children() if getattr(text, "get_text", str)() == title(figure))
    assert left.get_window_extent().x1 <= figure.bbox.x1, f"{title(figure)!r} is cut off"


@pytest.mark.parametrize("name", ALL)
def test_of_nothing_it_says_what_is_missing(name: str) -> None:
    figure = ALL[name](traces.empty())
    assert title(figure).startswith("No")
    assert "it needs" in said(figure)
    figure.draw_without_rendering()


@pytest.mark.parametrize("name", [*ONE, *SEVERAL])
def test_what_is_no_trace_is_a_type_error_in_a_sentence(name: str) -> None:
    draw = ONE.get(name) or SEVERAL[name]
    for wrong in (None, 3, "run.avtrace", [3], avlab.Server(DATA / "count-15.mp4")):
        with pytest.raises(TypeError, match=rf"plots\.{name} draws (a trace|traces).*, not ") as error:
            draw(wrong)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "draw", [plots.fps, plots.interval_error, plots.sync, plots.loss, plots.delay, plots.bitrate, plots.frame_bytes,
             plots.page, plots.pacers],
    ids=lambda draw: draw.__name__,
)  # fmt: skip
def test_so_it_is_for_the_other_plots(draw: Callable[..., Figure]) -> None:
    with pytest.raises(TypeError, match=rf"plots\.{draw.__name__} draws .*, not None"):
        draw(None)
    client = avlab.Client("rtsp://127.0.0.1:1/x", audio="null")
    with pytest.raises(TypeError, match=r"not a Client"):
        draw(client)
    if draw is not plots.pacers:
        assert isinstance(draw(trace=traces.empty()), Figure)


@pytest.mark.parametrize("name", ALL)
def test_one_sided_records_are_drawn_as_far_as_they_go(name: str) -> None:
    made = traces.run(seconds=2, loss=0.05, jitter_ms=5)
    far = traces.run(seconds=2, loss=0.05, clock_offset_ns=77)
    for trace in (made.server, made.client, join(far.server, far.client), simulated(2)):
        ALL[name](trace).draw_without_rendering()


# ---- each


def test_frame_loss_is_measured_and_predicted_together() -> None:
    runs = {"2 %": simulated(loss=0.02), "10 %": simulated(loss=0.1), "bursts": simulated(loss=0.1, burst=8)}
    figure = plots.frame_loss(runs)
    ax = figure.axes[0]
    line, *points = ax.lines
    sizes: dict[int, int] = {}
    for trace in runs.values():
        for size, count in metrics.packets_a_frame(trace).items():
            sizes[size] = sizes.get(size, 0) + count
    xs = np.asarray(line.get_xdata(), float)
    np.testing.assert_allclose(line.get_ydata(), network.expected_frame_loss(xs / 100, sizes) * 100)
    for trace, point in zip(runs.values(), points, strict=True):
        found = metrics.frame_loss(trace)
        assert found is not None
        assert point.get_xdata() == pytest.approx([100 * found.packet_loss])
        assert point.get_ydata() == pytest.approx([100 * found.frame_loss])
    assert [point.get_marker() for point in points] == ["o", "o", "D"]
    assert "n from 6 to 7" in said(figure)
    assert "; by chance alone, " in title(figure)
    assert said(plots.frame_loss(list(runs.values()))).count("run ") == 3


def test_a_raster_has_a_mark_for_every_copy() -> None:
    trace = simulated(3, loss=0.05, delay=0.02, jitter=0.02, reorder=True, duplicate=0.05, playout_delay=0.02)
    figure = plots.raster(trace)
    table = network.packet_fates(trace)
    counts = table["fate"].value_counts()
    marks = {line.get_marker(): len(np.atleast_1d(line.get_xdata())) for line in figure.axes[0].lines}
    looks = {"used": ".", "lost": "x", "duplicate": "+", "late": "^"}
    assert marks == {looks[fate]: count for fate, count in counts.items()}
    assert len(marks) == 4
    assert title(figure) == f"Of {table['number'].nunique()} packets, {counts['lost']} were lost"
    assert f"{counts['lost']} lost" in said(figure)


def test_a_raster_shows_the_part_that_is_asked_for() -> None:
    figure = plots.raster(simulated(10, loss=0.02), start=4, seconds=1)
    for line in figure.axes[0].lines:
        assert (np.asarray(line.get_xdata(), float) >= 4).all()
        assert (np.asarray(line.get_xdata(), float) <= 5.1).all()
    assert figure.axes[0].get_ylim()[0] < 5
    assert title(plots.raster(simulated(2), start=100)) == "No packet of video in this part of it"
    with pytest.raises(ValueError, match="seconds must be more than 0, not 0"):
        plots.raster(simulated(2), seconds=0)
    ours = Figure()
    assert plots.raster(simulated(2), ax=ours.add_subplot()) is ours


def test_what_a_repair_brought_back_stands_apart() -> None:
    record = Recorder(side="simulation", epoch_ns=0, clock="virtual")
    for seq, fate in enumerate(("used", "recovered", "lost", "socket_dropped", "in_flight")):
        received = 10**7 * (seq + 1) if fate in ("used", "recovered") else None
        record.packet("video", 9, seq, seq, True, 100, seq * 10**6, received, fate)
    figure = plots.raster(record.trace())
    assert title(figure) == "Of 5 packets, 3 were lost, and 1 of them recovered"
    assert "1 recovered; 1 lost; 1 dropped at the socket" in said(figure)
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 5


def test_delays_have_their_quantiles_marked() -> None:
    trace = recorded("classroom")
    figure = plots.delays(trace)
    video = network.delays(trace).table
    video = video[video["stream"] == "video"]["delay_ms"]
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(mark.get_xdata()[0]) for mark in marks] == pytest.approx(video.quantile([0.5, 0.95, 0.99]))  # type: ignore[index]
    assert figure.axes[0].get_xlabel() == "one-way delay (ms)"
    far = traces.run(seconds=2, jitter_ms=3, clock_offset_ns=77)
    assert plots.delays(join(far.server, far.client)).axes[0].get_xlabel().startswith("delay beyond the quickest")


def test_late_frames_lie_on_the_curve_predicted_from_the_first_run() -> None:
    net = {"delay": 0.02, "jitter": 0.03, "reorder": True}
    runs = {f"{wait} ms": simulated(20, playout_delay=wait / 1000, **net) for wait in (20, 60, 120)}
    figure = plots.playout(runs)
    curve, *points = figure.axes[1].lines
    xs, ys = (np.asarray(values, float) for values in (curve.get_xdata(), curve.get_ydata()))
    assert len(points) == 3
    for point in points:
        x, y = (float(np.atleast_1d(values)[0]) for values in (point.get_xdata(), point.get_ydata()))
        assert y == pytest.approx(np.interp(x, xs, ys), abs=3)
    assert len(figure.axes[0].lines) == 3
    assert "of the frames are late at a playout delay of" in title(figure)
    assert "predicted from the delays of \N{LEFT DOUBLE QUOTATION MARK}20 ms" in said(figure)


def test_adaptation_shows_rate_bottleneck_queue_and_choices() -> None:
    trace = recorded("bottleneck")
    figure = plots.adaptation(trace)
    above, middle, below = figure.axes[:3]
    assert set(np.asarray(above.lines[0].get_ydata(), float)) == {2_600}
    assert np.array_equal(middle.lines[0].get_ydata(), adaptation.queueing(trace)["queue_ms"])
    assert list(dict.fromkeys(np.asarray(below.lines[0].get_ydata(), float))) == [80, 50, 20]
    assert "2,600 can pass" in title(figure)
    assert "bottleneck, 2,600 kbit/s" in said(figure)
    assert "quality and width are not in the record" in said(plots.adaptation(traces.run(seconds=2).client))


def test_reports_stand_beside_the_truth() -> None:
    trace = recorded("classroom")
    figure = plots.reports(trace)
    table = metrics.reports(trace)
    table = table[table["stream"] == "video"]
    above, below = figure.axes
    assert above.lines[0].get_ydata() == pytest.approx(100 * table["fraction_lost"])
    assert below.lines[-1].get_ydata() == pytest.approx(table["jitter_ms"])
    assert "reported; what the network did" in said(figure)
    assert f"{table['cumulative_lost'].iloc[-1]:.0f} packets lost" in title(figure)


def test_two_runs_of_one_seed_agree_and_of_two_seeds_do_not() -> None:
    twin = simulated(10, loss=0.02, burst=4)
    figure = plots.real_against_simulated(simulated(9, loss=0.02, burst=4), twin)
    lost = (twin.packets["fate"] == "lost").sum()
    assert title(figure).endswith(" packets lost in both, none in one alone; all 270 frames fare alike")
    other = plots.real_against_simulated(simulated(10, loss=0.02, burst=4, seed=2), twin)
    found = metrics.agreement(simulated(10, loss=0.02, burst=4, seed=2), twin)
    assert len(found.differing) > lost > 0
    assert f"{len(found.differing)} in one alone" in title(other)
    marks = next(line for line in other.axes[0].lines if line.get_marker() == "X")
    assert np.array_equal(marks.get_xdata(), found.differing)
    with pytest.raises(TypeError, match="not None"):
        plots.real_against_simulated(twin, None)  # type: ignore[arg-type]


# ---- the recorded runs


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_is_small_and_its_ledgers_close(name: str) -> None:
    trace = recorded(name)
    assert (DATA / f"{name}.avtrace").stat().st_size < 300_000
    for stream in ("video", "audio"):
        assert metrics.packet_ledger(trace, stream).closes
        assert metrics.frame_ledger(trace, stream).closes
    assert trace.meta["joined"]
    assert trace.meta["shared_clock"]
    assert trace.meta["clip"] == "count.mp4"
    assert not {"url", "platform", "server"} & set(trace.meta)
    assert len(metrics.reports(trace)) >= 2


@pytest.mark.parametrize("name", ["4g", "classroom", "long-haul"])
def test_a_recorded_run_is_of_the_preset_and_loses_what_its_simulation_does(name: str) -> None:
    trace, preset = recorded(name), Network.presets[name]
    said = trace.settings
    assert said["value"][said["name"] == "network"].tolist() == [str(preset)]
    took = network.delays(trace).table["delay_ms"]
    assert took.min() >= 1000 * preset.delay
    assert took.min() < 1000 * preset.delay + 10
    assert took.mean() > 1000 * (preset.delay + 0.6 * preset.jitter)
    twin = avlab.simulate(DATA / "count.mp4", seconds=10, width=400, network=preset, work=0)
    found = metrics.agreement(trace, twin)
    assert len(found.lost) >= 2
    assert not len(found.differing)


def test_the_recorded_bottleneck_overflows_until_quality_is_low() -> None:
    trace = recorded("bottleneck")
    assert adaptation.bottleneck(trace)["kbps"].tolist() == [2_600]
    changes = adaptation.steps(trace, "quality")["time"].tolist()
    gone = network.packet_fates(trace)
    gone = gone["time"][gone["fate"] == "lost"]
    assert (gone < changes[-2]).sum() > 100
    assert not (gone > changes[-1] + 0.5).any()
    waits = adaptation.queueing(trace)
    assert waits["queue_ms"].max() > 250
    assert waits["queue_ms"].iloc[-1] < 40


@pytest.mark.parametrize("tall", [3.0, 6.0])
def test_names_of_points_that_are_near_meet_no_other_and_stay_inside(tall: float) -> None:
    figure = Plot(figsize=(12, tall), layout="constrained")
    ax = figure.subplots()
    ax.set_xlim(0, 700)
    ax.set_ylim(-5, 42)
    points = [(64.0, 0.7, "4g"), (129.0, 0.0, "long-haul"), (153.0, 0.0, "classroom"), (690.0, 41.0, "bottleneck")]
    network_plots.name_points(ax, points)
    figure.savefig(io.BytesIO())
    boxes = [text.get_window_extent() for text in ax.texts]
    assert [text.get_text() for text in ax.texts] == [name for *_, name in points]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)
