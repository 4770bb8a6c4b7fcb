"""What was shown live at a moment, against what tables, plots and summaries later say of it: one fold for both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import traces

from avlab.measure.numbers import metrics, rates
from avlab.measure.numbers.loss import frames_damaged, packets_lost
from avlab.measure.numbers.recent import FOLDS, LOOK_S, Recent, loss_now, numbers
from avlab.measure.record.join import join
from avlab.measure.record.tables import TABLES, UNKNOWN, Rows
from avlab.measure.record.trace import Trace

NS = 1_000_000_000
RECORDED = ("4g", "bottleneck", "classroom", "long-haul")
MADE_UP: dict[str, dict[str, Any]] = {
    "nothing lost": {},
    "lossy": {"loss": 0.1, "duplication": 0.05, "jitter_ms": 5, "av_ms": 20},
    "slow": {"loss": 0.02, "skip": frozenset(range(60, 150)), "drift": 0.01},
}


@pytest.fixture(params=[*RECORDED, *MADE_UP, "alone", "serving"])
def whole(request: pytest.FixtureRequest, data: Path) -> Trace:
    """A trace with a few seconds of a run: recorded ones, made-up ones, those of one side."""
    if request.param in RECORDED:
        return Trace.load(data / f"{request.param}.avtrace")
    made = traces.run(seconds=8, **MADE_UP.get(request.param, MADE_UP["lossy"]))
    sides = {"alone": made.client, "serving": made.server}
    return sides[request.param] if request.param in sides else join(made.server, made.client)


def at_the_time(trace: Trace, now_ns: int, seconds: float) -> Trace:
    """The last `seconds` as they were known at a moment, but for fates: no time is later."""
    tail, tables = trace.tail(now_ns - round(seconds * NS)), {}
    for name, table in TABLES.items():
        rows: Rows = tail.rows(name).copy()
        for column in table.times:
            rows[column][rows[column] > now_ns] = UNKNOWN
        tables[name] = [rows[np.any([rows[column] != UNKNOWN for column in table.times], axis=0)]]
    return Trace(**tables, settings=tail.setting_rows, meta=tail.meta)


def moments(trace: Trace) -> Iterator[tuple[int, float]]:
    """Moments of a run, from when it is in full swing, in nanoseconds and in seconds of its own."""
    begin = float(trace.packets[["sent", "received"]].min().min())
    for after in (3.7, 4.05, 4.61, 5.0, 6.3, 7.2):
        yield trace.epoch_ns + round((begin + after) * NS), begin + after


def last_rate(table: pd.DataFrame, now: float) -> float | None:
    """What a plot of fps shows at a moment: its last point, until there has been none for two seconds."""
    seen = table[(table["time"] <= now) & np.isfinite(table["fps"])]
    if not len(seen):
        return None
    return float(seen["fps"].iloc[-1]) if seen["time"].iloc[-1] > now - 2 else 0.0


def of_second(table: pd.DataFrame, second: int, value: Callable[[pd.DataFrame], pd.Series[Any]]) -> float | None:
    found = value(table[table["time"] == second])
    return float(found.iloc[0]) if len(found) and np.isfinite(found.iloc[0]) else None


def test_the_panel_s_numbers_are_those_of_the_tables_at_that_moment(whole: Trace) -> None:
    fps = {at: metrics.fps(whole, at) for at in ("sent", "complete", "shown")}
    lost, bits, frames, sync = metrics.loss(whole), metrics.bitrate(whole), whole.frames, whole.sync
    known = 0
    for now_ns, now in moments(whole):
        seen = numbers(at_the_time(whole, now_ns, LOOK_S), now_ns)
        trailing = whole.between(now - 1, now + 1e-9)
        buffered = sync["buffer"][sync["time"].between(now - 1, now)].dropna()
        late = (frames["fate"] == "late") & (frames["stream"] == "video") & frames["complete"].between(now - 2, now)
        expected = {
            "sent_fps": last_rate(fps["sent"], now),
            "received_fps": last_rate(fps["complete"], now),
            "shown_fps": last_rate(fps["shown"], now),
            "loss_percent": of_second(lost, math.floor(now - 0.5) - 1, lambda row: row["packet_loss"] * 100),
            "bitrate_kbps": of_second(bits, math.floor(now) - 1, lambda row: row["video"] + row["audio"]),
            "offset_ms": metrics.sync_summary(trailing).signed_median_ms,
            "buffer_ms": float(buffered.median() * 1e3) if len(buffered) else None,
            "target_fps": metrics.summary(whole).target_fps,
            "late": int(late.sum()),
        }
        for name, value in expected.items():
            shown = getattr(seen, name)
            if name.endswith("_fps") and value == 0.0 and shown is None:
                continue  # so long ago that it is not known whether there ever was a frame
            assert shown == pytest.approx(value), (name, now)
            known += value is not None
        assert loss_now(whole.tail(now_ns - round(LOOK_S * NS)), now_ns) == pytest.approx(seen.loss_percent)
        # A window and the status line have moments, and no trace.
        shown_ns = at_the_time(whole, now_ns, LOOK_S).rows("frames")[["stream", "shown"]]
        shown_ns = shown_ns["shown"][(shown_ns["stream"] == 0) & (shown_ns["shown"] != UNKNOWN)]
        assert rates.rate_of(shown_ns, now_ns) == pytest.approx(seen.shown_fps or 0.0)
    assert known > 18


def test_live_plots_draw_what_the_plots_of_the_trace_draw(whole: Trace) -> None:
    for now_ns, now in moments(whole):
        live = Recent(tuple(FOLDS), seconds=30)
        live.update(at_the_time(whole, now_ns, 60), now_ns)
        later = {
            "fps": metrics.fps(whole),
            "interval_error": metrics.interval_error(whole),
            "sync": whole.sync[["time", "offset"]].sort_values("time", kind="stable") * [1, 1e3],
            "loss": metrics.loss(whole) * [1, 100, 100],
            "bitrate": metrics.bitrate(whole),
        }
        for kind, table in later.items():
            until = {"loss": now - 2, "bitrate": now - 1}.get(kind, now)
            expected = table[table["time"] <= until].to_numpy(np.float64).T
            count = live.series[kind].shape[1]
            np.testing.assert_allclose(live.series[kind], expected[:, :count], rtol=0, atol=1e-6, err_msg=kind)
            # Seconds in which nothing is sent are drawn when something is again.
            assert kind in ("loss", "bitrate") or count == expected.shape[1]
            assert not np.nansum(expected[1:, count:])


def test_a_summary_is_what_the_tables_amount_to(whole: Trace) -> None:
    found, lost, bits = metrics.summary(whole), metrics.loss(whole), metrics.bitrate(whole)
    shown = np.sort(whole.frames["shown"][whole.frames["stream"] == "video"].dropna())
    assert found.bitrate_kbps == pytest.approx(float((bits["video"] + bits["audio"]).median()))
    assert found.fps == pytest.approx((len(shown) - 1) / (shown[-1] - shown[0]) if len(shown) > 1 else None)
    assert found.fps == metrics.convergence(whole).mean_fps == rates.mean_rate(rates.moments(whole, "shown"))
    packets, damaged = packets_lost(whole), frames_damaged(whole)
    assert (found.packet_loss_percent, found.frame_loss_percent) == (packets.percent, damaged.percent)
    assert lost["packet_loss"].max() * 100 >= (packets.percent or 0)
    by_one = metrics.loss(whole, bin=1e6)  # all of it
    assert np.nansum(by_one["packet_loss"]) * 100 == pytest.approx(packets.percent or 0)
    assert np.nansum(by_one["frame_loss"]) * 100 == pytest.approx(damaged.percent or 0)
    harm = metrics.frame_loss(whole)
    if harm is not None:
        assert (harm.packet_loss, harm.packets) == (pytest.approx(packets.fraction), packets.settled)
        assert harm.frame_loss == pytest.approx(damaged.fraction)
    assert metrics.sync_summary(whole).signed_median_ms == found.av_signed_ms
