"""What to make of what was found on the way to a server, and what to do about it: plain values in, a Judgement out.

Pure: asks no network, so that any can be judged anywhere. Whoever looks from one side cannot tell a firewall at the
other end from a Wi-Fi that keeps its computers apart, and is told what would.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

from avlab.lab.doctor.diagnosis import Judgement, State

APART = (
    "or the network keeps its computers apart (client isolation, usual in guests' Wi-Fi), which cannot be seen from "
    "one side: let the two change places, and if that fails too, use a phone's hotspot or a cable"
)
LET_IN = "let Python through the firewall or security program"
SAME_NETWORK = "join the network that the server's computer is in, and see that it is awake"


class Came(NamedTuple):
    """What came of a few seconds of one transport."""

    packets: Mapping[str, int]
    """By stream, video and audio; 0 where none came of what was granted."""
    answered: bool
    """Whether the server has answered what was sent to it the same way."""
    answers: bool
    """Whether it is one that answers: its description says so (RFC 3611 5.1)."""
    trip_ms: float | None = None
    """The shortest round trip."""
    refused: str = ""
    """Why it was not granted, in a sentence; empty where it was."""
    seconds: float = 0.0


def judge_name(host: str, addresses: list[str], failure: str | None) -> Judgement:
    """The server's name, or its address, and what it leads to; `failure` is the system's reason where it does not."""
    if failure is None and addresses:
        said = ", ".join(addresses[:3])
        return Judgement("ok", said if said == host else f"{host} is {said}")
    mend = "check its spelling, or write the numbers that 'avlab serve' prints, as in rtsp://192.168.1.20:8554/count"
    return Judgement("problem", f"the name {host} is not known in this network ({failure or 'no address'})", mend)


def judge_route(address: str, mine: str | None, failure: str | None) -> Judgement:
    """By which of its own addresses this computer would send to `address`; None where it has no way there."""
    if mine is None:
        found = f"there is no way from this computer to {address} ({failure or 'no route'})"
        return Judgement("problem", found, f"switch the Wi-Fi on, and {SAME_NETWORK}")
    if mine == address or (mine.startswith("127.") and address.startswith("127.")):
        return Judgement("ok", f"{mine}: the server is on this computer")
    if address.startswith("127.") or address == "::1":
        mend = "ask for the address that 'avlab serve --host' or '--class' prints: 127.0.0.1 is each computer itself"
        return Judgement("note", f"{address} is this computer itself", mend)
    return Judgement("ok", f"{mine} to {address}")


def judge_connection(where: str, code: int | None, failure: str | None, *, local: bool) -> Judgement:
    """Whether a TCP connection was made: `code` is the system's error number, 0 for a time that has passed, None for no
    error at all.
    """
    if code is None:
        return Judgement("ok", f"{where} takes connections")
    if code == errno.ECONNREFUSED:
        mend = "start the server, and check the port"
        if not local:
            mend += ": 'avlab serve' is for its own computer alone, unless it is given --host ADDRESS or --class"
        return Judgement("problem", f"nothing listens at {where}: the computer is there, and refuses", mend)
    if code in (errno.EHOSTUNREACH, errno.ENETUNREACH, getattr(errno, "EHOSTDOWN", -1)):
        mend = f"{SAME_NETWORK}; {APART}"
        return Judgement("problem", f"no computer answers for {where} ({failure})", mend)
    if code == 0:
        mend = f"see that the address is right; {LET_IN} on the server's computer; {APART}"
        return Judgement("problem", f"{where} does not answer: neither yes nor no", mend)
    return Judgement("problem", f"{where} cannot be reached ({failure})", f"{SAME_NETWORK}; {APART}")


def judge_answer(failure: str | None, status: int | None, *, coded: bool) -> Judgement:
    """Whether the server describes its stream: else its sentence, and the status of its refusal, None without one.

    `coded` is whether a code, or a user and a password, were given.
    """
    if failure is None:
        return Judgement("ok", "it answers, and describes a stream that can be played")
    if status in (401, 403, 407):
        if coded:
            mend = "ask for the code again: a server that was started anew has another one"
        else:
            mend = "ask for the class's code, and give it: avlab doctor URL --code CODE, and avlab play URL --code CODE"
        return Judgement("problem", failure, mend)
    if status == 404:
        mend = "check the part of the address after the port: 'avlab serve' prints the whole of it"
    elif status == 503:
        mend = "wait until somebody leaves, or have it started with more --clients"
    elif status is not None:
        mend = "see what the server says at its own end"
    else:
        mend = "see that an RTSP server listens at this port: 'avlab serve' prints its address"
    return Judgement("problem", failure, mend)


def _counted(packets: Mapping[str, int]) -> str:
    nouns = {"video": "pictures", "audio": "sound"}
    return " and ".join(f"{count:,} packets of {nouns.get(name, name)}" for name, count in packets.items())


def judge_down(way: str, came: Came, *, other: bool, firewall: str = "") -> Judgement:
    """What came here over `way`, UDP or TCP; `other` is whether everything comes the other way.

    `firewall` is what is seen of this computer's own.
    """
    state: State = "note" if other else "problem"
    instead = f"'avlab play' takes {'TCP' if way == 'UDP' else 'UDP'}" if other else ""
    if came.refused:
        by_itself = f"{instead} by itself" if instead else "see at the server what it offers"
        return Judgement(state, f"not granted: {came.refused}", by_itself)
    missing = [name for name, count in came.packets.items() if not count]
    if not missing:
        return Judgement("ok", f"{_counted(came.packets)} in {came.seconds:.1f} s")
    if way == "TCP":
        found = f"the server has granted it, and {_counted(came.packets)} came in {came.seconds:.1f} s"
        return Judgement(state, found, instead or "see at the server whether it plays, and play again")
    if len(missing) < len(came.packets):
        words = f"{_counted(came.packets)} came in {came.seconds:.1f} s"
        return Judgement(state, words, f"ask for all of it over TCP: avlab play URL --{missing[0]}-over tcp")
    own = f" (here: {firewall})" if firewall else ""
    found = f"RTSP answers, and not one datagram came in {came.seconds:.1f} s"
    mend = f"{LET_IN} here{own}; or one on the way holds UDP back, {APART}"
    if other:
        mend = f"{instead} by itself; for UDP, {mend}"
    return Judgement(state, found, mend)


def judge_up(way: str, came: Came) -> Judgement:
    """Whether what is sent from here over `way` reaches the server: its reports answer those from here (RFC 3611)."""
    if came.refused or not any(came.packets.values()):
        return Judgement("note", "not known, as nothing came", "mend what stands above first")
    if came.answered:
        trip = f"; a round trip takes {came.trip_ms:.1f} ms" if came.trip_ms is not None else ""
        return Judgement("ok", f"the server answers reports from here{trip}")
    if not came.answers:
        mend = "avlab's server does; with this one, see at its end whether it knows what was lost"
        return Judgement("note", "not known: this server does not answer reports", mend)
    mend = f"pictures come, but nothing is sent again, and the server knows no loss: {LET_IN} on the server's computer"
    if way == "UDP":
        mend += ", or 'avlab play URL --video-over tcp'"
    return Judgement("note", f"reports from here do not reach the server, or {came.seconds:.1f} s were too short", mend)
