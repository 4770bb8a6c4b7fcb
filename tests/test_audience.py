"""A server's audience: names as RTCP carries them, what each client is sent and says, who comes and who leaves."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rawclient import until

import avlab
from avlab.core.budget import FeedbackBudget
from avlab.core.events import Path as Way
from avlab.core.sender import Outlet, Sender
from avlab.measure.numbers.attendance import (
    COLUMNS,
    UNNAMED_S,
    WIFI,
    Member,
    Pulse,
    Roll,
    audience_table,
    total_kbps,
    total_words,
)
from avlab.wire import rtcp
from avlab.wire.batch import Batch
from avlab.wire.text import MOST_OF_A_PERSON, check_name, person
from avlab.wire.units import NS, WireError

TAG = "<img src=x onerror=alert(1)>"

# ---- names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ada", "Ada"),
        ("  Ada \t Lovelace\n", "Ada Lovelace"),
        ("J\u00f6rg \u5c71\u7530", "J\u00f6rg \u5c71\u7530"),
        ("\x1b[2JAda\x07", "[2JAda"),
        ("Ada\u202e\u2066evil\u2069\u200f", "Adaevil"),
        ("\ufeff\u200b\u2028", ""),
        ("\u200d\u200c", ""),
        ("e" + "\u0301" * 30, "e" + "\u0301" * 4),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("\ud800Ada", "Ada"),
        ("a" * 100, "a" * 40),
        ("ab " * 40, ("ab " * 14)[:40].strip()),
        (TAG, TAG),
        ("\u202e" * 10_000 + "Ada", ""),
    ],
)
def test_a_strangers_name_is_made_fit_to_be_shown(text: str, shown: str) -> None:
    assert person(text) == shown


@given(
    st.text(max_size=200)
    | st.text(alphabet="\u202a\u202e\u2066\u2069\u200e\u061c\x1b\x9b\r\nab \u0301\u200d", max_size=90)
)
def test_no_name_turns_or_commands_anything(text: str) -> None:
    shown = person(text)
    assert len(shown) <= MOST_OF_A_PERSON
    assert shown == shown.strip()
    assert person(shown) == shown
    for character in shown:
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp", "Cn", "Co")
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )


def test_ones_own_name_is_refused_where_it_cannot_be_told_whole() -> None:
    assert check_name(" Ada ") == "Ada"
    assert check_name("") == ""
    for name, words in (("a" * 41, "at most 40 characters"), ("\x07", "no character that can be shown")):
        with pytest.raises(ValueError, match=words):
            avlab.Client("rtsp://127.0.0.1:1/x", name=name)
    with pytest.raises(TypeError, match="name must be text"):
        avlab.Client("rtsp://127.0.0.1:1/x", name=7)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_a_description_has_the_name_beside_the_cname(name: str) -> None:
    name = person(name)
    sent = rtcp.Sdes(7, "avlab", name)
    data = rtcp.serialize_compound([rtcp.ReceiverReport(7), sent])
    assert len(data) % 4 == 0
    assert rtcp.parse_compound(data)[1:] == [sent]
    assert rtcp.name_in(data) == name


def test_a_name_alone_other_items_and_what_is_cut_short() -> None:
    # RFC 3550 6.5: TOOL (6) and NOTE (7) are passed over, a second source's name counts where the first has none.
    def packed(*chunks: tuple[int, list[tuple[int, bytes]]]) -> bytes:
        body = b""
        for ssrc, items in chunks:
            chunk = ssrc.to_bytes(4, "big") + b"".join(bytes([kind, len(text)]) + text for kind, text in items) + b"\0"
            body += chunk + bytes(-len(chunk) % 4)
        return bytes([0x80 | len(chunks), 202]) + (len(body) // 4).to_bytes(2, "big") + body

    data = packed((1, [(1, b"c"), (6, b"tool")]), (2, [(7, b"note"), (2, b"Ada")]))
    assert rtcp.name_in(data) == "Ada"
    assert rtcp.parse_compound(data) == [rtcp.Sdes(1, "c"), rtcp.Sdes(2, "", "Ada")]
    assert rtcp.name_in(rtcp.serialize_compound([rtcp.ReceiverReport(1), rtcp.Sdes(1, "c")])) == ""
    assert rtcp.name_in(packed((1, [(2, b"\xff\xfeA")]))).endswith("A")
    for cut in range(1, len(data)):
        with pytest.raises(WireError):
            rtcp.name_in(data[:cut])


def report(reporter: int, ssrc: int, *, name: str = "", lost: int = 0) -> Batch:
    block = rtcp.ReportBlock(ssrc, lost, 0, 1, 0, 0, 0)
    data = rtcp.serialize_compound([rtcp.ReceiverReport(reporter, (block,)), rtcp.Sdes(reporter, "x", name)])
    return Batch(data, len(data))


@pytest.mark.parametrize("group", [False, True])
def test_a_sender_learns_what_those_who_report_are_called(group: bool) -> None:
    machine = Sender(unix_offset_ns=0, budget=FeedbackBudget(), shared=group)
    machine.add(Outlet("video", rate=90_000, ssrc=5, sequence=1, timestamp_offset=0))
    machine.play(0, 0)
    machine.receive(Way("", control=True), report(100, 6, name="about another's stream"), NS)
    assert machine.names == {}
    machine.receive(Way("", control=True), report(100, 5, name="Ada\x1b"), NS)
    machine.receive(Way("", control=True), report(100, 5, name="too soon"), NS + 1)
    assert machine.names == {100 if group else 0: "Ada"}
    machine.receive(Way("", control=True), report(100, 5), 2 * NS)
    machine.receive(Way("", control=True), report(100, 5, name="Grace"), 3 * NS)
    assert machine.names == {100 if group else 0: "Grace"}


def test_a_flood_of_names_is_bounded() -> None:
    machine = Sender(unix_offset_ns=0, budget=FeedbackBudget(), shared=True)
    machine.add(Outlet("video", rate=90_000, ssrc=5, sequence=1, timestamp_offset=0))
    for reporter in range(2000):
        machine.receive(Way("", control=True), report(reporter, 5, name=f"n{reporter}"), NS)
    assert len(machine.names) <= 512


# ---- numbers


def member(client: int, name: str = "", **numbers: Any) -> Member:
    return Member(client, name, f"10.0.0.{client}", 1_700_000_000 * NS, **numbers)


def test_a_row_a_client_and_what_is_not_known_is_nan() -> None:
    table = audience_table([member(3, TAG, fps=30.0, loss=0.02), member(7)], UTC)
    assert tuple(table.columns) == COLUMNS
    assert list(table.index) == [3, 7]
    assert table.index.name == "client"
    assert table.loc[3, "name"] == TAG
    assert table.loc[3, "since"] == pd.Timestamp(1_700_000_000, unit="s", tz="UTC")
    assert math.isnan(table.loc[7, "loss"])
    assert TAG not in table.to_html()
    empty = audience_table([], UTC)
    assert tuple(empty.columns) == COLUMNS
    assert list(empty.dtypes) == list(table.dtypes)


def test_what_goes_to_a_group_is_summed_once() -> None:
    members = [member(1, kbps=1000.0), member(2, kbps=4000.0, group="g"), member(3, kbps=4100.0, group="g"), member(4)]
    assert total_kbps(members) == 5100
    assert total_kbps([]) == 0


@pytest.mark.parametrize(
    ("clients", "words"),
    [
        (0, "Nobody plays."),
        (1, "1 client is sent 4.7 Mbit/s: any Wi-Fi carries that"),
        (30, "30 clients are sent 141 Mbit/s: more than 2.4 GHz"),
        (30, f"{WIFI[1][0]} carries about 250."),
        (60, f"more than {WIFI[1][0]} carries for a whole room (about 250 Mbit/s)"),
    ],
)
def test_the_sum_is_held_against_what_wifi_carries(clients: int, words: str) -> None:
    assert words in total_words([member(number, kbps=4700.0) for number in range(1, clients + 1)])


def test_rates_are_of_the_last_two_seconds() -> None:
    pulse = Pulse()
    assert pulse.rates(0) == (None, None)
    for step in range(41):  # ten seconds; the last five send twice as much
        now_ns = step * NS // 4
        assert pulse.due(now_ns)
        frames = 5 * step + 5 * max(0, step - 20)
        pulse.mark(now_ns, frames, 1000 * frames)
        assert not pulse.due(now_ns + NS // 5)
    fps, kbps = pulse.rates(10 * NS)
    assert fps == pytest.approx(40)
    assert kbps == pytest.approx(320)
    assert pulse.rates(13 * NS) == (None, None), "nobody has looked for long"
    pulse.mark(13 * NS, 3, 100)  # set up anew
    assert pulse.rates(13 * NS) == (None, None)


def test_who_comes_is_told_of_once_its_name_had_time_to_come_and_who_leaves_at_once() -> None:
    roll, base = Roll(), 1_700_000_000 * NS
    silent, named = member(1), member(2, "Ada")
    assert roll.call([silent], base) == []
    assert [str(change) for change in roll.call([silent, named], base + NS // 2)] == ["Ada (10.0.0.2) joined"]
    later = base + round(UNNAMED_S * NS)
    assert [str(change) for change in roll.call([silent, named], later)] == ["10.0.0.1 joined"]
    assert roll.call([silent, named], later + NS) == []
    left = roll.call([silent], later + NS)
    assert [str(change) for change in left] == ["Ada (10.0.0.2) left"]
    assert roll.call([silent, member(3)], base) == []
    assert roll.call([silent], later) == [], "who was never told of has not left either"


@given(st.lists(st.sets(st.integers(1, 6)), max_size=12))
@example([{1}, set(), {1}])
def test_who_is_there_in_the_end_are_those_who_joined_and_have_not_left(rounds: list[set[int]]) -> None:
    roll, here = Roll(), set[int]()
    for numbers in rounds:
        for change in roll.call([member(number, "x") for number in sorted(numbers)], 1_700_000_000 * NS):
            (here.add if change.joined else here.remove)(change.member.client)
        assert here == numbers


# ---- over sockets


@pytest.fixture
def server(data: Path) -> Iterator[avlab.Server]:
    with avlab.Server(data / "count.mp4", port=0, loop=True, multicast=True) as server:
        yield server


def reported(server: avlab.Server, count: int) -> pd.DataFrame:
    def told() -> bool:
        table = server.audience
        return len(table) == count and bool(table[["fps", "kbps", "loss", "round_trip"]].notna().all(axis=None))

    until(told)
    return server.audience


@pytest.mark.slow
def test_the_audience_says_who_plays_and_how(server: avlab.Server) -> None:
    assert server.audience.empty
    before = pd.Timestamp.now("UTC") - pd.Timedelta(seconds=1)
    with (
        avlab.Client(server.url, audio="null", name=TAG) as first,
        avlab.Client(server.url, audio="null", video_over="tcp"),
    ):
        table = reported(server, 2)
        assert list(table["name"]) == [TAG, ""]
        assert list(table["address"]) == ["127.0.0.1"] * 2
        assert ((table["since"] > before) & (table["since"] <= pd.Timestamp.now("UTC"))).all()
        assert (table["loss"] <= 1).all()
        assert (table["kbps"] > 100).all()
        assert (table["last_report"] < 60).all()
        assert first.trace.meta["name"] == TAG
    until(lambda: server.audience.empty)


@pytest.mark.slow
def test_members_of_a_group_are_told_apart_and_their_stream_is_summed_once(server: avlab.Server) -> None:
    ways: Any = {"audio": "null", "video_over": "multicast", "audio_over": "multicast"}
    with avlab.Client(server.url, name="Ada", **ways), avlab.Client(server.url, name="Grace", **ways):
        table = reported(server, 2)
        until(lambda: set(server.audience["name"]) == {"Ada", "Grace"})
        assert total_kbps(server.members) < 1.5 * table["kbps"].max()


@pytest.mark.slow
def test_an_isolated_server_has_an_audience_too(data: Path) -> None:
    with avlab.Server(data / "count.mp4", port=0, loop=True, isolated=True) as server:
        assert server.audience.empty
        with avlab.Client(server.url, audio="null", name="Ada"):
            assert list(reported(server, 1)["name"]) == ["Ada"]


@pytest.mark.slow
def test_the_classic_wire_knows_addresses_and_rates_and_no_name(data: Path) -> None:
    with (
        avlab.Server(data / "count.mp4", port=0, loop=True, wire="classic", width=400) as server,
        avlab.Client(server.url, audio="null", name="Ada") as client,
    ):
        until(lambda: len(server.audience) == 1 and server.audience["kbps"].notna().all())
        [row] = server.members
        assert (row.name, row.address, row.loss, row.last_report) == ("", "127.0.0.1", None, None)
        assert any("name" in words for words in client.notices)
