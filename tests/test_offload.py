"""When the system is to cut packets up: decided with literal times, then seen on sockets and in the trace."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawclient import RawClient, until

import avlab
from avlab.network import offload as module
from avlab.network.offload import Offload, check_offload
from avlab.stream.sockets.links import UdpLink
from avlab.wire.batch import Batch

NS = 1_000_000_000
linux = sys.platform.startswith("linux")


class Told(list[tuple[str, str]]):
    """What was used from when on, and in which words it was told."""

    def __call__(self, used: str, words: str) -> None:
        self.append((used, words))

    @property
    def used(self) -> list[str]:
        return [used for used, _ in self]


def frames(offload: Offload, seconds: float, rate: int, *, start: float = 0.0, able: bool = True) -> list[bool]:
    """What it says of each of the frames, 25 a second, that so many packets a second make."""
    moments = range(round(start * 25), round((start + seconds) * 25))
    return [offload.count(rate // 25, able, at * NS // 25) for at in moments]


# ---- decided


def test_it_is_on_once_there_were_so_many_for_two_seconds() -> None:
    told = Told()
    offload = Offload(told)
    assert not any(frames(offload, 2, 5_000))
    assert all(frames(offload, 3, 5_000, start=2))
    assert told == [("off", ""), ("on", module.TURNED_ON)]


def test_it_stays_off_below_that_and_on_above_half_of_it() -> None:
    told = Told()
    offload = Offload(told)
    assert not any(frames(offload, 60, 4_975))
    frames(offload, 3, 10_000, start=60)
    assert all(frames(offload, 60, 2_500, start=63))
    assert frames(offload, 5, 2_475, start=123)[-1] is False
    assert told.used == ["off", "on", "off"]
    assert told[-1] == ("off", module.TURNED_OFF)


def test_a_burst_of_a_second_turns_nothing_on_and_a_lull_of_one_nothing_off() -> None:
    told = Told()
    offload = Offload(told)
    for at in range(0, 20, 2):
        frames(offload, 1, 20_000, start=at)
        frames(offload, 1, 3_000, start=at + 1)
    assert told.used == ["off"]
    frames(offload, 3, 20_000, start=20)
    for at in range(23, 43, 2):
        frames(offload, 1, 100, start=at)
        frames(offload, 1, 3_000, start=at + 1)
    assert told.used == ["off", "on"]


def test_seconds_in_which_nothing_is_sent_count_however_long_they_last() -> None:
    told = Told()
    offload = Offload(told)
    assert frames(offload, 4, 6_000)[-1]
    assert not offload.count(200, True, 3600 * NS)
    assert told.used == ["off", "on", "off"]


def test_on_and_off_are_at_once_and_said_without_a_notice() -> None:
    told = Told()
    offload = Offload(told, mode="on")
    assert offload.count(10, True, 0)
    offload.mode = "off"
    assert not any(frames(offload, 5, 50_000))
    offload.mode = "auto"  # it has been watched meanwhile
    assert offload.count(10, True, 5 * NS)
    assert [(used, bool(words)) for used, words in told] == [("on", False), ("off", False), ("on", True)]


def test_where_there_is_none_it_is_never_on_and_said_so() -> None:
    told = Told()
    offload = Offload(told)
    assert not any(frames(offload, 5, 50_000, able=False))
    offload.mode = "on"
    assert not offload.count(10, True, 5 * NS)  # what could not once is not asked again
    assert told == [("not available", "")]
    told = Told()
    assert not Offload(told, mode="on").count(10, False, 0)
    assert told == [("not available", module.NOT_HERE)]


def test_a_device_that_turns_out_not_to_be_able_is_told() -> None:
    told = Told()
    offload = Offload(told, mode="on")
    assert offload.count(10, True, 0)
    assert not offload.count(10, False, 1)
    assert told == [("on", ""), ("not available", module.NOT_HERE)]


@given(st.lists(st.tuples(st.integers(0, 4 * NS), st.integers(0, 10_000)), max_size=60))
def test_however_packets_come_each_change_is_told_once(packets: list[tuple[int, int]]) -> None:
    told = Told()
    offload = Offload(told)
    now_ns = 0
    for after_ns, count in packets:
        now_ns += after_ns
        assert offload.count(count, True, now_ns) == (told.used[-1] == "on")
    assert all(before != after for before, after in zip(told.used, told.used[1:], strict=False))


@pytest.mark.parametrize("value", ["maybe", "ON", "", True, None, 1])
def test_what_cannot_be(value: Any) -> None:
    with pytest.raises(ValueError, match="offload must be 'auto', 'on' or 'off', not "):
        check_offload(value)
    with pytest.raises(ValueError, match="offload must be 'auto', 'on' or 'off', not "):
        avlab.Server([np.zeros((64, 64, 3), np.uint8)], offload=value)


# ---- on sockets


@contextmanager
def viewer(server: avlab.Server) -> Iterator[socket.socket]:
    """A client's socket that pictures come to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, RawClient(server.url) as client:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(10)
        port = udp.getsockname()[1]
        client.set_up("video", f"RTP/AVP;unicast;client_port={port}-{port}")
        assert client.ask("PLAY").status == 200
        yield udp


def in_use(server: avlab.Server) -> list[str]:
    rows = server.trace.settings
    return list(rows[rows["name"] == "offload in use"]["value"])


def test_a_server_does_as_it_is_told_and_its_trace_says_what_was_used(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bool] = []
    send = UdpLink.send_batch

    def watched(self: UdpLink, batch: Batch, to: Any) -> int:
        if batch.total > 1:
            sent.append(self.segments)
        return send(self, batch, to)

    monkeypatch.setattr(UdpLink, "send_batch", watched)
    with avlab.Server(data / "count-15.mp4", loop=True, quality=95) as server, viewer(server):
        assert server.offload == "auto"
        until(lambda: sent)
        assert not any(sent)
        server.offload = "on"
        until(lambda: len(in_use(server)) > 1)
        until(lambda: sent[-1] == linux)
        server.offload = "off"
        until(lambda: not sent[-1] or not linux)
    assert in_use(server) == (["off", "on", "off"] if linux else ["not available"])
    rows = server.trace.settings
    assert list(rows[rows["name"] == "offload"]["value"]) == ["auto", "on", "off"]
    assert not any("offload" in words for words in server.notices if linux)


def test_a_busy_server_has_the_system_cut_packets_up_and_says_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ON_FROM", 50)
    with avlab.Server(data / "count-15.mp4", loop=True, quality=95) as server, viewer(server):
        until(lambda: server.notices or not linux)
    assert in_use(server)[:2] == (["off", "on"] if linux else ["not available"])
    assert all("offload='off' leaves each as it is" in words for words in server.notices)


def test_an_isolated_server_may_be_told_too(data: Path) -> None:
    with avlab.Server(data / "count-15.mp4", loop=True, isolated=True, offload="on") as server:
        assert server.offload == "on"
        with viewer(server):
            until(lambda: in_use(server))
            server.offload = "off"
            until(lambda: len(in_use(server)) > 1 or not linux)
        assert server.offload == "off"
    assert in_use(server) == (["on", "off"] if linux else ["not available"])


def test_the_classic_wire_has_nothing_to_cut_up() -> None:
    pictures = [np.zeros((64, 64, 3), np.uint8)]
    assert avlab.Server(pictures, wire="classic").notices == ()
    [words] = avlab.Server(pictures, wire="classic", offload="on").notices
    assert words.startswith("offload does nothing on the classic wire")


def test_the_command_line_hands_it_on(data: Path, tmp_path: Path) -> None:
    trace = tmp_path / "server.avtrace"
    with commands.running(
        "serve", data / "count-15.mp4", "--port", "0", "--offload", "off", "--trace", trace
    ) as server:
        server.end()
    rows = avlab.Trace.load(trace).settings
    assert list(rows[rows["name"] == "offload"]["value"]) == ["off"]
    ended = commands.run("serve", data / "count-15.mp4", "--offload", "maybe")
    assert ended.returncode != 0
    assert "--offload" in commands.sentence(ended.stderr)
