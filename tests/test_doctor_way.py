"""The doctor on the way to a server: each way that can fail is named in a sentence, and so is what to do."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import commands
import ports
import pytest
from oddserver import OddServer, reply

import avlab
from avlab.lab.doctor import way
from avlab.lab.doctor import way_judgement as judge
from avlab.lab.doctor.diagnosis import Judgement
from avlab.lab.doctor.machine import Finding, Machine, as_text, works
from avlab.lab.doctor.way_judgement import Came

CLIP = Path(__file__).parents[1] / "data" / "count.mp4"
PATIENT, BRIEF = 40.0, 1.5
"""Seconds to listen: where something is to come, however busy this machine is; and where nothing will."""

STEPS = ["address", "route", "connection", "RTSP", "UDP, to here", "UDP, from here", "TCP, to here", "TCP, from here"]


def look(url: str, *, listen: float = BRIEF, code: str | None = None) -> dict[str, Finding]:
    found = way.look(url, code=code, on=Machine(run=lambda command: None, read=lambda path: None), listen=listen)
    assert [finding.name for finding in found] == STEPS[: len(found)]
    for finding in found:
        assert (finding.mend is None) == (finding.state == "ok"), finding
    return {finding.name: finding for finding in found}


def verdict(found: dict[str, Finding]) -> str:
    return way.verdict(list(found.values()))


# --- judgements: the state, and words that found and mend have to hold


def came(video: int = 9, audio: int = 9, **more: Any) -> Came:
    given: dict[str, Any] = {"answered": True, "answers": True, "trip_ms": 3.25, "seconds": 1.5} | more
    return Came({"video": video, "audio": audio}, **given)


def reach(code: int | None, words: str | None, *, local: bool = False) -> Judgement:
    return judge.judge_connection("a:1", code, words, local=local)


REFUSED = Came({}, answered=False, answers=False, refused="461 Unsupported Transport")
FOUND: list[tuple[Judgement, str, str, str]] = [
    (judge.judge_name("127.0.0.1", ["127.0.0.1"], None), "ok", "127.0.0.1", ""),
    (judge.judge_name("ada", ["10.0.0.2", "fe80::1"], None), "ok", "ada is 10.0.0.2, fe80::1", ""),
    (judge.judge_name("ada", [], "Name or service not known"), "problem", "not known in this network", "the numbers"),
    (judge.judge_route("10.0.0.2", None, "No route"), "problem", "no way from this", "switch the Wi-Fi on"),
    (judge.judge_route("10.0.0.2", "10.0.0.7", None), "ok", "10.0.0.7 to 10.0.0.2", ""),
    (judge.judge_route("127.0.0.1", "127.0.0.1", None), "ok", "the server is on this computer", ""),
    (reach(None, None), "ok", "takes connections", ""),
    (reach(errno.ECONNREFUSED, "x"), "problem", "refuses", "--host ADDRESS or --class"),
    (reach(errno.ECONNREFUSED, "x", local=True), "problem", "refuses", "start the server"),
    (reach(errno.EHOSTUNREACH, "No route"), "problem", "no computer answers", "client isolation"),
    (reach(0, "timed out"), "problem", "neither yes nor no", "seen from one side"),
    (reach(999, "strange"), "problem", "strange", "change places"),
    (judge.judge_answer(None, None, coded=False), "ok", "can be played", ""),
    (judge.judge_answer("wants it (401)", 401, coded=False), "problem", "wants it", "--code CODE"),
    (judge.judge_answer("wrong (401)", 401, coded=True), "problem", "wrong", "another one"),
    (judge.judge_answer("no (404)", 404, coded=False), "problem", "no", "after the port"),
    (judge.judge_answer("full (503)", 503, coded=False), "problem", "full", "--clients"),
    (judge.judge_answer("odd (500)", 500, coded=False), "problem", "odd", "its own end"),
    (judge.judge_answer("no RTSP", None, coded=False), "problem", "no RTSP", "prints its address"),
    (judge.judge_down("UDP", came(), other=True), "ok", "9 packets of pictures and 9 packets of sound in 1.5 s", ""),
    (judge.judge_down("UDP", came(0, 0), other=True), "note", "not one datagram came", "takes TCP by itself"),
    (judge.judge_down("UDP", came(0, 0), other=True), "note", "RTSP answers", "client isolation"),
    (judge.judge_down("UDP", came(0, 0), other=False, firewall="ufw on"), "problem", "datagram", "(here: ufw on)"),
    (judge.judge_down("UDP", came(9, 0), other=True), "note", "0 packets of sound", "--audio-over tcp"),
    (judge.judge_down("UDP", REFUSED, other=True), "note", "461", "takes TCP"),
    (judge.judge_down("TCP", REFUSED, other=False), "problem", "461", "what it offers"),
    (judge.judge_down("TCP", came(0, 0), other=True), "note", "has granted it, and 0 packets", "takes UDP"),
    (judge.judge_down("TCP", came(0, 0), other=False), "problem", "has granted it", "whether it plays"),
    (judge.judge_up("UDP", came()), "ok", "a round trip takes 3.2 ms", ""),
    (judge.judge_up("UDP", came(answered=False)), "note", "do not reach the server", "--video-over tcp"),
    (judge.judge_up("UDP", came(answered=False, answers=False)), "note", "does not answer reports", "avlab's server"),
    (judge.judge_up("UDP", came(0, 0)), "note", "nothing came", "above first"),
]  # fmt: skip


@pytest.mark.parametrize(("judged", "state", "found", "mend"), FOUND, ids=[str(at) for at in range(len(FOUND))])
def test_each_judgement_says_what_is_there_and_what_to_do(judged: Judgement, state: str, found: str, mend: str) -> None:
    assert judged.state == state
    assert found in judged.found
    assert mend in (judged.mend or "")
    assert (judged.mend is None) == (state == "ok")


# --- the real way


@pytest.mark.slow
def test_a_way_that_is_open_is_open_both_ways_over_both() -> None:
    with avlab.Server(CLIP, loop=True, width=160) as server:
        found = look(server.url, listen=PATIENT)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert list(found) == STEPS
    assert "packets of pictures and" in found["UDP, to here"].found
    assert "a round trip takes" in found["UDP, from here"].found
    assert verdict(found) == "avlab plays this address: pictures over UDP, sound over TCP."
    assert "avlab plays this address" in as_text(list(found.values()), verdict=verdict(found)).splitlines()[-1]


def drops_reports(packet: Any, state: dict[str, Any]) -> bool:
    return bool(packet.payload[1:2] == b"\xc9")  # a receiver report: what is sent upwards


@pytest.mark.slow
def test_reports_that_do_not_reach_the_server_are_told_from_packets_that_do_not_come() -> None:
    with avlab.Server(CLIP, loop=True, width=160, network=avlab.Network(loss=drops_reports)) as server:
        found = look(server.url, listen=4)
    assert found["UDP, to here"].state == "ok"
    assert found["UDP, from here"].state == "note"
    assert "do not reach the server" in found["UDP, from here"].found
    assert {found[name].state for name in STEPS[6:]} == {"ok"}
    assert works(found.values())


@pytest.mark.slow
def test_datagrams_that_do_not_come_are_named_and_tcp_is_what_is_left() -> None:
    with (
        avlab.Server(CLIP, loop=True, width=160) as server,
        avlab.Relay(server.url, one_way=True, network=avlab.Network(loss=1.0)) as relay,
    ):
        found = look(relay.url, listen=4)
    assert found["UDP, to here"].state == "note"
    assert "RTSP answers, and not one datagram came" in found["UDP, to here"].found
    assert "client isolation" in str(found["UDP, to here"].mend)
    assert "nothing came" in found["UDP, from here"].found
    assert found["TCP, to here"].state == "ok"
    assert works(found.values())
    assert verdict(found) == "avlab plays this address, with everything over TCP."


def no_tcp(asked: Any) -> bytes | None:
    """Refuse interleaving."""
    refused = "interleaved" in asked.headers.get("transport", "")
    return reply(asked, status="461 Unsupported Transport") if refused else None


def no_udp(asked: Any) -> bytes | None:
    """Refuse datagrams."""
    refused = "client_port" in asked.headers.get("transport", "")
    return reply(asked, status="461 Unsupported Transport") if refused else None


@pytest.mark.slow
@pytest.mark.parametrize(("guard", "open_one", "shut"), [(no_tcp, "UDP", "TCP"), (no_udp, "TCP", "UDP")])
def test_a_server_that_grants_one_transport_alone_is_played_over_that(guard: Any, open_one: str, shut: str) -> None:
    with OddServer() as server:
        server.guard = guard
        found = look(server.url, listen=PATIENT)
    assert found[f"{open_one}, to here"].state == "ok"
    assert found[f"{shut}, to here"].state == "note"
    assert "461" in found["UDP, to here"].found or "grants UDP" in found["TCP, to here"].found
    assert "does not answer reports" in found[f"{open_one}, from here"].found
    assert works(found.values())


@pytest.mark.slow
def test_where_nothing_comes_at_all_the_exit_code_says_so() -> None:
    with OddServer(udp="shut") as server:
        server.guard = no_tcp
        found = look(server.url)
        assert [found[f"{each}, to here"].state for each in ("UDP", "TCP")] == ["problem", "problem"]
        assert verdict(found) == "This address cannot be played from here yet: mend what is marked x (2)."
        done = commands.run("doctor", server.url)
        assert done.returncode == 1, done.stderr
        assert "x problem  UDP, to here" in done.stdout
        assert "client isolation" in " ".join(done.stdout.split())
        assert done.stderr == ""


@pytest.mark.slow
def test_reports_alone_are_no_pictures() -> None:
    with OddServer(udp="reports alone") as server:
        found = look(server.url)
    assert "not one datagram" in found["UDP, to here"].found or "0 packets" in found["UDP, to here"].found
    assert found["TCP, to here"].state == "ok"


def test_a_code_that_is_wanted_is_asked_for() -> None:
    with avlab.Server(CLIP, loop=True, width=160, host="127.0.0.1", class_code=True) as server:
        without = look(server.url)
        assert list(without) == STEPS[:4]
        assert without["RTSP"].state == "problem"
        assert "avlab doctor URL --code CODE" in str(without["RTSP"].mend)
        wrong = look(server.url, code="BBBBBB" if server.class_code != "BBBBBB" else "CCCCCC")
        assert "another one" in str(wrong["RTSP"].mend)
        right = look(server.url, code=server.class_code, listen=PATIENT)
        assert {finding.state for finding in right.values()} == {"ok"}
        assert server.class_code not in "".join(map(str, [*wrong.values(), *right.values()]))


@pytest.mark.parametrize(("status", "words"), [("404 Not Found", "after the port"), ("503 Busy", "--clients")])
def test_a_description_that_is_refused_is_named(status: str, words: str) -> None:
    with OddServer({"DESCRIBE": lambda asked: reply(asked, status=status)}) as server:
        found = look(server.url)
    assert list(found) == STEPS[:4]
    assert status.split()[0] in found["RTSP"].found
    assert words in str(found["RTSP"].mend)


@contextmanager
def says(words: bytes) -> Iterator[str]:
    """A server that says this to whoever comes."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                if connection.recv(1_000):
                    connection.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(10)


def test_what_is_no_rtsp_server_is_said_to_be_none() -> None:
    with says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n\x1b[31m") as url:
        found = look(url)
    assert list(found) == STEPS[:4]
    assert found["RTSP"].state == "problem"
    assert "prints its address" in str(found["RTSP"].mend)
    assert "\x1b" not in found["RTSP"].found


def test_a_port_at_which_nothing_listens_is_refused() -> None:
    port = ports.free()
    found = look(f"rtsp://127.0.0.1:{port}/count")
    assert list(found) == STEPS[:3]
    assert f"nothing listens at 127.0.0.1:{port}" in found["connection"].found
    done = commands.run("doctor", f"rtsp://127.0.0.1:{port}/count", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["works"] is False
    assert said["findings"][-1]["name"] == "connection"
    assert "start the server" in said["findings"][-1]["mend"]


def test_a_name_that_nobody_knows_is_named() -> None:
    found = look("rtsp://no-such-computer.invalid:8554/count")  # RFC 6761: no name ends so
    assert list(found) == STEPS[:1]
    assert "no-such-computer.invalid is not known" in found["address"].found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["classic://127.0.0.1:9688"], "no address to play: write it as rtsp://host:port/path"),
        (["--code", "BCDFGH"], "--code is for an address"),
        (["rtsp://127.0.0.1:1/x", "--code", "no"], "a class code has 6 letters"),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence(arguments: list[str], words: str) -> None:
    done = commands.run("doctor", *arguments)
    assert done.returncode == 1
    assert words in commands.sentence(done.stderr)
