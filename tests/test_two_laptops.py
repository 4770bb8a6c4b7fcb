"""Two computers, one clock 300 ms off and 50 ppm fast: their records are joined, and what that says is as it says."""

from __future__ import annotations

from pathlib import Path

import commands
import laptops
import numpy as np
import pytest
import tools

import avlab
from avlab.measure.record.clock_offset import ClockOffset


@pytest.mark.slow
@pytest.mark.needs("ip")
@pytest.mark.parametrize("ways", ["alike", "up is slower"])
def test_the_offset_of_two_computers_is_within_what_it_says(ways: str, tmp_path: Path) -> None:
    ran = laptops.run(tmp_path, ways)
    assert ran.apart is (laptops.namespaces() is not None)
    server, client = (avlab.Trace.load(tmp_path / f"{side}.avtrace") for side in ("server", "client"))
    assert server.meta["clock"] != client.meta["clock"]
    joined = avlab.join(server, client)
    assert joined.meta["shared_clock"] is False

    (first, first_there), (last, last_there) = ran.samples
    offset = ClockOffset.of_plain(joined.meta["clock_offset"])
    assert offset is not None
    rate = (last_there - first_there - (last - first)) / (last - first)
    assert rate * 1e6 == pytest.approx(laptops.PPM, abs=0.01)
    truth = first_there - first + (offset.at_ns - first) * rate
    assert (np.abs(offset.ahead_ns - truth) <= offset.error_ns + 1_000).all()

    found = avlab.metrics.clocks(joined)
    assert found is not None
    assert found.consistent
    assert abs(found.ahead_ms - laptops.AHEAD * 1e3) <= found.error_ms + laptops.PPM * 1e-6 * 1e3 * laptops.SECONDS
    assert abs(found.drift_ppm - laptops.PPM) <= found.drift_error_ppm
    if ways == "up is slower":
        assert found.error_ms >= 0.98 * 32, "64 ms there and back: how they are shared, nobody can tell"

    # The packets' true delays, by the one clock that there is in truth.
    table = avlab.metrics.one_way_delay(joined)
    assert len(table)
    assert table["delay_ms"].notna().all()
    rows = joined.rows("packets")
    sent = avlab.join(server, client).rows("packets")  # on the client's clock
    assert (rows == sent).all()
    theirs = server.rows("packets")
    sent_truth = dict(zip(zip(theirs["ssrc"].tolist(), (theirs["seq"] % 65_536).tolist(), strict=True),
                          theirs["sent"].tolist(), strict=True))  # fmt: skip
    came = joined.packets.dropna(subset=["sent", "received"]).sort_values("sent")
    for (_, row), delay_ms, error_ms in zip(
        came.head(200).iterrows(), table["delay_ms"].head(200), table["error_ms"].head(200), strict=True
    ):
        sent_ns = sent_truth[row["ssrc"], row["seq"] % 65_536]
        received_ns = joined.epoch_ns + round(row["received"] * 1e9)
        received_ns -= round(first_there - first + (received_ns - first_there) * rate)
        assert delay_ms == pytest.approx((received_ns - sent_ns) / 1e6, abs=error_ms + 0.01)


@pytest.mark.needs("ip")
def test_without_a_network_the_doctor_says_that_there_is_no_way() -> None:
    before = laptops.namespaces() or []
    done = tools.finished(*before, *commands.command("doctor", "rtsp://192.0.2.9:8554/count"))
    if before:  # else this machine's own network decides what becomes of an address for documents
        assert "x problem  route" in done.stdout, done.stderr
        assert "there is no way from this computer to 192.0.2.9" in " ".join(done.stdout.split())
    assert done.returncode == 1
