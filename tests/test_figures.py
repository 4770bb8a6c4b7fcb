"""Figures without a trace, the folds behind them, and what an image says to those who cannot see it."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from packing import JpegPacketizer

import avlab
from avlab.lab.plots import runs as plots
from avlab.lab.plots.drawing import Plot
from avlab.measure.numbers import datagrams as measured
from avlab.measure.numbers import timelines
from avlab.measure.record.trace import FrameRow, Recorder
from avlab.media.packets import MediaError
from avlab.wire import fields
from avlab.wire.classic import ClassicSound, ClassicVideo
from avlab.wire.rtp import RtpPacket
from avlab.wire.units import Chunk, EncodedFrame, WireError


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left").replace("\n", " ")


def words(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


TABLE = pd.DataFrame([[1_000, 8_000, 20_000], [3_000, 30_000, 90_000]], index=[10, 90], columns=[100, 400, 900])


# ---- alt text


def test_an_image_reaches_the_page_with_its_text() -> None:
    figure = plots.gaps({"a < b": [0, 0.1, 0.2]})
    data, metadata = figure._repr_mimebundle_()  # type: ignore[attr-defined]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert (
        'alt="Pictures come: a &lt; b every 100 ms. Plot of gap to the next picture (ms) against' in data["text/html"]
    )
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert "a < b: 10 fps" in data["text/plain"]


def test_an_image_is_turned_dark_by_a_dark_page_and_by_no_other() -> None:
    page = plots.gaps({"a": [0, 0.1, 0.2]})._repr_mimebundle_()[0]["text/html"]  # type: ignore[attr-defined]
    style, image = page.split("</style>")
    assert 'data-jp-theme-light="false"' in style
    assert "filter" not in image
    assert 'class="avlab-plot"' in image


def test_a_text_of_ones_own_wins() -> None:
    figure = plots.gaps({"a": [0, 0.1]})
    assert isinstance(figure, Plot)
    figure.alt = "one gap"
    assert figure.described() == "one gap"


# ---- gaps and players


def test_gaps_are_between_pictures_in_the_order_of_showing() -> None:
    found = timelines.gaps([0.3, 0.0, 0.1])
    np.testing.assert_allclose(found.gaps_ms, [100, 200])
    assert found.fps == pytest.approx(2 / 0.3)
    assert not found.even
    assert timelines.gaps(n / 30 for n in range(9)).even
    assert timelines.gaps([]).fps is None
    assert timelines.gaps([1.0, 1.0]).fps is None


def test_gaps_are_drawn_clip_by_clip() -> None:
    figure = plots.gaps({"even": np.arange(5) / 10, "odd": [0.0, 0.1, 0.4], "one": [0.0]})
    assert title(figure) == "Pictures come: even every 100 ms, odd from 100 ms to 300 ms"
    assert words(figure) == ["even: 10 fps", "odd: 5 fps"]
    assert title(plots.gaps({"one": [0.0]})).startswith("No ")


def test_how_a_player_went_through_its_clip() -> None:
    found = timelines.playing([(10.0, 0.5), (11.0, 2.5)])
    assert found.speed == 2.0
    assert found.off == -1.0
    assert found.real.tolist() == [0, 1]
    assert timelines.playing([(10.0, 0.5)]).speed is None
    with pytest.raises(ValueError, match="at least one picture"):
        timelines.playing([])


def test_players_are_drawn_against_real_time() -> None:
    runs = {
        name: [(n * gap, n / 30) for n in range(31)]
        for name, gap in (("hare", 0.001), ("clock", 1 / 30), ("snail", 0.05))
    }
    figure = plots.players(runs)
    assert title(figure) == "hare: 1 s of clip in 0.03 s"
    said = words(figure)
    assert "hare: 33.3 times too fast" in said
    assert "clock: in time" in said
    assert "snail: up to 0.5 s late" in said
    assert title(plots.players({"none": []})).startswith("No ")


def test_sound_that_runs_out_is_told_from_sound_that_is_kept() -> None:
    minutes = np.arange(0, 12, 0.1)
    left, kept = pd.Series(100 - 12 * (minutes % 8.3), minutes), pd.Series(100.0, minutes)
    figure = plots.levels({"left alone": left, "kept": kept, "silent": pd.Series(dtype=float)})
    assert title(figure) == "Left alone runs empty after 8.2 min, kept keeps 100 ms"
    assert words(figure) == ["left alone", "kept"]
    assert figure.axes[0].get_xlabel() == "time (min)"
    assert title(plots.levels({})).startswith("No ")


# ---- sizes


def test_base64_makes_four_bytes_of_three() -> None:
    assert [measured.in_base64(n) for n in (0, 1, 2, 3, 4, 6_912)] == [0, 4, 4, 4, 8, 9_216]
    assert measured.in_base64(TABLE).loc[90, 400] == 40_000


def test_the_best_quality_that_fits() -> None:
    best = measured.largest(TABLE, 9_000)
    assert best[100] == 90
    assert best[400] == 10
    assert np.isnan(best[900])


def test_a_clips_frames_grow_with_width_and_quality(clip: Path) -> None:
    table = avlab.frame_sizes(clip, widths=(80, 320), qualities=(20, 90), pictures=2)
    assert table.index.tolist() == [20, 90]
    assert table.columns.tolist() == [80, 320]
    assert table.loc[20, 80] < table.loc[90, 80] < table.loc[90, 320]
    assert table.equals(avlab.frame_sizes(clip, widths=(80, 320), qualities=(20, 90), pictures=2))


def test_sizes_of_what_cannot_be_are_refused(clip: Path, tmp_path: Path) -> None:
    for wrong in ({"widths": ()}, {"widths": (3,)}, {"qualities": (0,)}, {"pictures": 0}):
        with pytest.raises(ValueError, match=r"width|quality|picture"):
            avlab.frame_sizes(clip, **wrong)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        avlab.frame_sizes(tmp_path / "none.mp4")
    (tmp_path / "no.mp4").write_bytes(b"no clip")
    with pytest.raises(MediaError):
        avlab.frame_sizes(tmp_path / "no.mp4")


def test_a_heat_map_has_a_line_for_each_limit_that_is_crossed() -> None:
    figure = plots.frame_sizes(TABLE)
    assert words(figure) == [
        "one fragment: 1,200 bytes",
        "macOS's datagram: 9,216 bytes",
        "the largest datagram: 65,507 bytes",
    ]
    assert title(figure) == "A frame has from 1,000 to 90,000 bytes"
    figure = plots.frame_sizes(TABLE, limits={"a postcard": 500, "a truck": 10**6})
    assert words(figure) == []
    assert title(figure).endswith("no frame fits a postcard (500 bytes); every frame fits a truck (1,000,000 bytes)")
    assert title(plots.frame_sizes(TABLE.loc[[10]])).startswith("No ")


# ---- packets


@pytest.fixture(scope="module")
def frame() -> EncodedFrame:
    from avlab.media.codec import encode_jpeg

    jpeg, width, height = encode_jpeg(np.full((64, 96, 3), 90, np.uint8), quality=50)
    return EncodedFrame(0, 0, jpeg, width, height)


def covered(found: list[fields.Field], data: bytes) -> bool:
    edges = [found[0].start, *(field.stop for field in found)]
    return edges[0] == 0 and edges[-1] == len(data) and all(f.start == e for f, e in zip(found, edges, strict=False))


def test_the_fields_of_an_rtp_jpeg_packet(frame: EncodedFrame) -> None:
    packet = JpegPacketizer(ssrc=0xABCD, sequence=7, timestamp_offset=90_000).pack(frame)[-1]
    found = {field.name: field.value for field in fields.rtp_fields(packet)}
    assert covered(fields.rtp_fields(packet), packet)
    assert found["sequence number"] == "7"
    assert found["timestamp"].startswith("90,000 ticks")
    assert found["SSRC"].startswith("0x0000abcd")
    assert "last of its frame" in found["marker and payload type"]
    assert found["width and height"].startswith("96 x 64")
    assert found["Q"] == "50, the quality"


def test_the_fields_of_other_packets(frame: EncodedFrame) -> None:
    sound = RtpPacket(10, 1, 2, 3, False, b"\0" * 8).serialize()
    assert fields.rtp_fields(sound)[-1] == fields.Field("payload", 12, 20, "8 bytes")
    datagram = ClassicVideo().pack(frame)[0]
    assert covered(fields.classic_picture_fields(datagram), datagram)
    message = ClassicSound().pack(Chunk(0, 0, np.ones((100, 2), np.int16), 44_100))[0]
    found = fields.classic_sound_fields(message)
    assert covered(found, message)
    assert message[found[2].start : found[2].stop] == b"\1\0" * 200


def test_what_is_no_packet_is_refused() -> None:
    for read, data in (
        (fields.rtp_fields, b"\x80"),
        (fields.classic_picture_fields, b"***"),
        (fields.classic_sound_fields, b"\1\0\0\0\0\0\0\0"),
    ):
        with pytest.raises(WireError):
            read(data)


def test_packets_are_drawn_byte_by_byte_and_described_by_field(frame: EncodedFrame) -> None:
    packet = JpegPacketizer(ssrc=1, sequence=7, timestamp_offset=0).pack(frame)[0]
    datagram = ClassicVideo().pack(frame)[0]
    figure = plots.packets(
        {"RTP": (packet, fields.rtp_fields(packet)), "classic": (datagram, fields.classic_picture_fields(datagram))}
    )
    assert title(figure) == f"RTP: {len(packet):,} bytes"
    assert "9a" in words(figure)  # the marker, and type 26
    assert isinstance(figure, Plot)
    assert "sequence number, 7;" in figure.described()
    figure.draw_without_rendering()
    assert title(plots.packets({})).startswith("No ")


# ---- pieces, comparisons, sizes over time


def test_pieces_are_drawn_where_bytes_were_cut() -> None:
    figure = plots.pieces({"sent": [100, 100], "received": [150, 50], "none": []})
    assert title(figure) == "sent: 2 pieces; received: 2 pieces; none: 0 pieces"
    assert words(figure) == ["100", "100", "150", "50"]
    assert title(plots.pieces({"sent": []})).startswith("No ")


def test_runs_are_compared_row_by_row() -> None:
    runs = {name: avlab.simulate(30, pacer=name, seconds=60, work=0.002) for name in ("deadline", "none")}
    runs["tutorial"] = avlab.simulate(30, pacer=avlab.TutorialPacer(edition="macos"), seconds=60, work=0.002)
    table = avlab.metrics.compare(runs)
    assert table.index.tolist() == ["deadline", "none", "tutorial"]
    assert table.loc["deadline", "slide, ms a minute"] == 0
    # It settles on 33 and 34 ms by turns, a sixth of a millisecond too much for each of 1,800 frames.
    assert table.loc["tutorial", "slide, ms a minute"] == pytest.approx(300, abs=3)
    assert table.loc["tutorial", "behind, ms"] == pytest.approx(300, abs=3)
    assert np.isnan(table.loc["none", "settled, s"])


def test_a_slider_that_is_pulled_leaves_one_mark() -> None:
    assert timelines.steps([0.0, 0.1, 0.2, 5.0, 9.0, 9.1], apart=0.5) == [2, 3, 5]
    assert timelines.steps([]) == []


def test_frames_sizes_are_drawn_over_time_with_what_changed_them() -> None:
    recorder = Recorder(side="server", epoch_ns=0, clock="virtual")
    for n in range(60):
        recorder.frame(FrameRow("video", n, n * 10**8, n, sent_ns=n * 10**8, bytes=1000 + n, fate="in_flight"))
    for at, value in ((10**9, 70), (11 * 10**8, 50)):
        recorder.setting(at, "quality", value)
    recorder.setting(3 * 10**9, "width", 320)
    figure = plots.frame_bytes(recorder.trace())
    assert words(figure) == ["quality 50", "width 320"]
    assert title(figure) == "Half of the frames have 1,030 bytes or fewer, the largest 1,059"
    assert title(plots.frame_bytes(Recorder(side="server", epoch_ns=0, clock="virtual").trace())).startswith("No ")
