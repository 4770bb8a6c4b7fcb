"""Codecs and payload formats of one's own in simulated runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from test_own_pictures import Difference, Grey, Numbered, fails, of, spins

import avlab
from avlab.stream.virtual.ownpictures import MOST_ENCODED

LOSSY = avlab.Network(loss=0.03, seed=3)


def run(clip: Any, **keywords: Any) -> Any:
    """Ten seconds, and its pictures' rows."""
    keywords = {"network": LOSSY, "seconds": 10, "width": 160, "audio": False} | keywords
    trace = avlab.simulate(clip, **keywords)
    return trace, trace.frames.query("stream == 'video'")


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """A part that fails is an error, unless a test expects it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", avlab.PartWarning)
        yield


@pytest.mark.parametrize(
    "parts", [{"payload": Numbered}, {"codec": Grey}, {"payload": Numbered(), "codec": Difference}]
)
def test_a_run_of_ones_own_parts_is_the_same_for_a_seed_and_another_for_others(
    clip: Any, parts: dict[str, Any]
) -> None:
    trace, frames = run(clip, **parts)
    again, _ = run(clip, **parts)
    assert trace.frames.equals(again.frames)
    assert trace.packets.equals(again.packets)
    told = trace.settings.set_index("name")["value"]
    names = {
        name: type(part()).__name__ if isinstance(part, type) else type(part).__name__ for name, part in parts.items()
    }
    assert {name: told[name] for name in names} == names
    assert set(frames["fate"]) <= {"shown", "incomplete", "lost"}
    assert (frames["fate"] == "shown").sum() > 200
    assert (trace.packets["fate"] == "lost").any()


def test_a_payload_format_makes_its_own_packets(clip: Any) -> None:
    class Small(Numbered):
        def pack(self, frame: bytes, most: int) -> list[bytes]:
            return super().pack(frame, 204)

    clear = avlab.Network()
    _, usual = run(clip, network=clear)
    trace, small = run(clip, payload=Small, network=clear)
    assert trace.packets["bytes"].max() == 204 + 12
    assert small["packets"].mean() > 3 * usual["packets"].mean()
    assert list(small["bytes"].dropna()[:50]) == list(usual["bytes"].dropna()[:50])


def test_a_codec_encodes_the_clips_first_pictures_once_and_gives_their_sizes(clip: Any) -> None:
    seen: list[tuple[int, ...]] = []

    class Counts(Grey):
        def encode(self, image: Any, quality: int) -> bytes:
            seen.append((*image.shape, quality))
            return bytes(1000 + len(seen))

    _, frames = run(clip, codec=Counts, network=avlab.Network(), seconds=8, quality=70)
    assert 1 < len(seen) <= MOST_ENCODED
    assert {(width, quality) for _, width, _, quality in seen} == {(160, 70)}
    sizes = list(frames.sort_values("index")["bytes"])
    assert sizes == [1001 + at % len(seen) for at in range(len(sizes))]


def test_a_rate_controller_changes_a_codecs_sizes_as_it_changes_jpegs(clip: Any) -> None:
    class Halves:
        def update(self, report: avlab.Report) -> avlab.Choice:
            return avlab.Choice(20, 80)

    trace, frames = run(clip, codec=of(Grey, encode=lambda self, image, quality: bytes(2000)), rate_control=Halves)
    sizes = frames.sort_values("index")["bytes"].dropna()
    assert sizes.iloc[0] == 2000
    assert sizes.iloc[-1] < 1000
    assert trace.settings.query("name == 'quality'")["value"].iloc[-1] in (20, "20")


def test_repairs_bring_back_what_a_format_of_ones_own_has_lost(clip: Any) -> None:
    _, lossy = run(clip, payload=Numbered, codec=Difference)
    for repair in ("rtx", "fec"):
        _, repaired = run(clip, payload=Numbered, codec=Difference, repair=repair, playout_delay=0.3)
        assert (repaired["fate"] == "shown").sum() > (lossy["fate"] == "shown").sum()


BROKEN: list[tuple[str, dict[str, Any], bool]] = [
    ("the codec Mine failed: ZeroDivisionError", {"codec": of(Grey, encode=fails)}, True),
    ("encode() returned nothing", {"codec": of(Grey, encode=lambda self, image, quality: None)}, True),
    ("the codec Mine had not returned after 1.5 s", {"codec": of(Grey, encode=spins), "payload": Numbered}, True),
    ("the payload format Mine failed", {"payload": of(Numbered, pack=fails)}, True),
    ("gave a piece of", {"payload": of(Numbered, pack=lambda self, frame, most: [bytes(most + 1)])}, True),
    ("the payload format Mine had not returned", {"payload": of(Numbered, pack=spins), "codec": Grey}, True),
    ("the payload format Mine failed", {"payload": of(Numbered, unpack=fails)}, False),
    ("are not the JPEG", {"payload": of(Numbered, unpack=lambda self, payloads: b"no")}, False),
    ("the payload format Mine had not returned", {"payload": of(Numbered, unpack=spins)}, False),
]


@pytest.mark.parametrize(("words", "parts", "goes_on"), BROKEN)
def test_a_run_goes_on_without_a_broken_part(clip: Any, words: str, parts: dict[str, Any], goes_on: bool) -> None:
    with pytest.warns(avlab.PartWarning) as told:
        trace, frames = run(clip, **parts, network=avlab.Network(), seconds=2)
    [warning] = told
    assert words in str(warning.message)
    [event] = trace.settings.query("name == 'part failed'")["value"]
    assert event == str(warning.message)
    assert set(frames["fate"]) == {"shown" if goes_on else "incomplete"}


@pytest.mark.parametrize(
    ("keywords", "kind", "words"),
    [
        ({"payload": Numbered, "network": None}, ValueError, "there are none without a network"),
        ({"codec": Grey, "clip": 30.0}, ValueError, "a codec wants pictures to encode"),
        ({"codec": 7}, TypeError, "the codec int has no method encode"),
        ({"payload": Grey}, TypeError, "the payload format Grey has no method pack"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    clip: Any, keywords: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        run(keywords.pop("clip", clip), **keywords)
    assert words in str(caught.value)
