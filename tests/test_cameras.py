"""Servers that ask for a password, as cameras do: what the client answers, what it keeps to itself, what it says."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from oddserver import Answer, Asked, OddServer, reply
from rawclient import until

import avlab
from avlab.stream.rtsp.dialogue import RefusedError, Session
from avlab.wire.digest import parse_schemes, response_of, secret_of
from avlab.wire.units import NS

TCP = {"video": "tcp", "audio": "tcp"}
USER, PASSWORD = "ann", "top:secret"


def proves(asked: Asked, nonces: tuple[str, ...]) -> bool:
    """Whether a request has the right credentials of Digest, made with one of these nonces for its very first line."""
    given = next(iter(parse_schemes(asked.headers.get("authorization", ""))), None)
    if given is None or given.name != "digest" or given.get("nonce") not in nonces or given.get("uri") != asked.uri:
        return False
    name = given.get("algorithm") or "MD5"
    algorithm = name.removesuffix("-sess")
    wanted = response_of(
        secret_of(USER, given.get("realm"), PASSWORD, algorithm),
        algorithm=algorithm, nonce=given.get("nonce"), method=asked.method, uri=asked.uri, qop=given.get("qop"),
        nc=given.get("nc"), cnonce=given.get("cnonce"), session=name.endswith("-sess"),
    )  # fmt: skip
    return given.get("username") == USER and given.get("response") == wanted


def refusal(asked: Asked, *challenges: str) -> bytes:
    """401, with a header each."""
    return reply(asked, *(f"WWW-Authenticate: {value}" for value in challenges), status="401 Unauthorized")


def asking(*challenges: str, free: tuple[str, ...] = (), nonces: tuple[str, ...] = ("5f3c0de1",)) -> Answer:
    """A camera's guard: it has these challenges for all methods but those that are free."""

    def guard(asked: Asked) -> bytes | None:
        return None if asked.method in free or proves(asked, nonces) else refusal(asked, *challenges)

    return guard


@contextmanager
def camera(guard: Answer) -> Iterator[tuple[OddServer, str]]:
    """A camera, and its address with user and password."""
    with OddServer() as server:
        server.guard = guard
        yield server, with_login(server.url)


def with_login(url: str) -> str:
    return url.replace("//", "//ann:top%3Asecret@")


def bound(host: str) -> Any:
    raise AssertionError("nothing here comes over UDP")


def opened(url: str) -> Session:
    """A dialogue up to PLAY's answer."""
    session = Session(url)
    try:
        session.open(TCP, bound)
        session.play()
        session.leave()
    finally:
        session.close()
    return session


def kept_secret(server: OddServer) -> bool:
    """Whether no request shows the password, nor where it would be guessed: the line, or Basic."""
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return not any(word in asked.text for asked in server.asked for word in ("secret", basic, "@"))


DIGEST = 'Digest realm="cam", nonce="5f3c0de1"'
QOP = f'{DIGEST}, qop="auth"'
SHA256 = f"{QOP}, algorithm=SHA-256"


@pytest.mark.parametrize(
    "challenges",
    [
        [DIGEST],
        [f"{DIGEST}, algorithm=MD5"],
        [f'{DIGEST}, stale="FALSE", opaque=""'],
        [QOP],
        [f'{DIGEST}, qop="auth-int"'],
        [SHA256],
        [f"{QOP}, algorithm=MD5-sess"],
        [f"{QOP}, algorithm=SHA-256-sess"],
        [SHA256, QOP],
        [QOP, SHA256],
        [f"{SHA256}, {QOP}"],
        ['Basic realm="cam"', DIGEST],
        [f'{DIGEST}, Basic realm="cam"'],
        [f"{DIGEST}, algorithm=SHA-512-256", DIGEST],
    ],
    ids=range(14),
)
@pytest.mark.parametrize("free", [(), ("OPTIONS",), ("OPTIONS", "DESCRIBE")])
def test_a_camera_that_asks_for_a_password_is_answered(challenges: list[str], free: tuple[str, ...]) -> None:
    with camera(asking(*challenges, free=free)) as (server, url):
        opened(url)
        assert {"SETUP", "PLAY"} <= {asked.method for asked in server.asked if proves(asked, ("5f3c0de1",))}
        refused = [asked for asked in server.asked if asked.method not in free and not proves(asked, ("5f3c0de1",))]
        assert len(refused) == 1  # the first: from then on each has its proof
    assert kept_secret(server)


def test_a_camera_with_another_nonce_for_each_request_is_answered() -> None:
    """Once each, and without a word of the old one being stale."""
    numbers, given = count(1), [""]

    def guard(asked: Asked) -> bytes | None:
        if proves(asked, tuple(given)):
            given[0] = ""
            return None
        given[0] = f"n{next(numbers)}"
        return refusal(asked, f'Digest realm="cam", nonce="{given[0]}"')

    with camera(guard) as (server, url):
        opened(url)
    assert server.methods.count("PLAY") == 2


def test_a_camera_that_hangs_up_after_its_challenge_is_connected_to_again() -> None:
    with camera(asking(DIGEST)) as (server, url):
        server.hangs_up = True
        opened(url)
        assert len(server.visits) == 2


@pytest.mark.parametrize("challenge", [DIGEST, f"{DIGEST}, stale=true"])
def test_a_wrong_password_is_tried_once(challenge: str) -> None:
    """Cameras shut people out who guess; and one that calls the same nonce stale each time is not asked for ever."""
    with camera(asking(challenge, nonces=())) as (server, url):
        with pytest.raises(RefusedError, match=r"does not accept the user name .* \(401\): check how") as caught:
            opened(url)
        assert len([asked for asked in server.asked if "authorization" in asked.headers]) == 1
    assert "secret" not in str(caught.value)
    assert kept_secret(server)


def test_a_stale_nonce_is_answered_with_the_next() -> None:
    nonces = iter(["old", "new"])

    def guard(asked: Asked) -> bytes | None:
        if proves(asked, ("new",)):
            return None
        stale = ", stale=true" if "authorization" in asked.headers else ""
        return refusal(asked, f'Digest realm="cam", nonce="{next(nonces)}"{stale}')

    with camera(guard) as (server, url):
        opened(url)
    assert server.methods.count("OPTIONS") == 3


def test_without_a_password_it_is_said_how_to_give_one() -> None:
    with camera(asking(DIGEST, free=("OPTIONS",))) as (server, _):
        with pytest.raises(RefusedError, match=r"wants a user name .*401\): play rtsp://USER:PASSWORD@host"):
            opened(server.url)
        assert server.methods == ["OPTIONS", "DESCRIBE"]


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        ('Basic realm="cam"', r"everybody on the way can read \(401\): allow_basic=True .avlab play --allow-basic"),
        (f"{DIGEST}, algorithm=SHA-512-256", "does not know: Digest with SHA-512-256"),
        ("Negotiate \x1b[2J", r"does not know: negotiate"),
    ],
)
def test_what_is_asked_for_and_not_given_is_said(challenge: str, said: str) -> None:
    with camera(asking(challenge, nonces=())) as (server, url):
        with pytest.raises(RefusedError, match=said) as caught:
            opened(url)
        assert not any("authorization" in asked.headers for asked in server.asked)
    assert "\x1b" not in str(caught.value)


def test_basic_is_given_where_it_is_allowed() -> None:
    told = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def guard(asked: Asked) -> bytes | None:
        return None if asked.headers.get("authorization") == told else refusal(asked, 'Basic realm="cam"')

    with camera(guard) as (server, url):
        ways: dict[str, Any] = {"audio": "null", "video_over": "tcp", "audio_over": "tcp"}
        with avlab.Client(url, allow_basic=True, **ways) as client:
            until(lambda: (client.trace.frames["fate"] == "shown").any())
        seen = [repr(client), client.url, str(client.trace.meta), str(client.trace.settings), *client.notices]
    assert server.methods.count("PLAY") == 1
    assert not any("secret" in text or told in text for text in seen)


# ---- to others nothing is told


@pytest.mark.parametrize("status", ["301 Moved", "302 Moved"])
@pytest.mark.parametrize("when", ["at once", "once the password is right"])
def test_another_server_that_one_sends_on_to_is_told_nothing(status: str, when: str) -> None:
    with camera(asking(SHA256, 'Basic realm="cam"', nonces=())) as (there, _):
        guards = asking(DIGEST) if when != "at once" else lambda asked: None
        with camera(guards) as (here, url):  # the same host at another port is another server
            location = f"Location: {with_login(there.url)}"
            here.answers["DESCRIBE"] = lambda asked: reply(asked, location, status=status)
            with pytest.raises(RefusedError, match=r"\(401\): those of the address are for the server that"):
                opened(url)
        assert there.methods == ["OPTIONS", "DESCRIBE"]
        assert not any("authorization" in asked.headers for asked in there.asked)
        assert kept_secret(there)
        assert kept_secret(here)


def test_another_server_that_asks_for_nothing_is_played_and_told_nothing() -> None:
    with OddServer() as there, camera(asking(DIGEST)) as (here, url):
        here.answers["DESCRIBE"] = lambda asked: reply(asked, f"Location: {there.url}", status="302 Moved")
        session = opened(url)
        assert not any("authorization" in asked.headers for asked in there.asked)
    assert "not told the user name" in session.moves[0]


def test_the_same_server_at_another_path_is_answered() -> None:
    with camera(asking(DIGEST)) as (server, url):
        server.answers["DESCRIBE"] = lambda asked: (
            reply(asked, "Location: /other", status="302 Moved")
            if asked.uri.endswith("/odd")
            else reply(asked, "Content-Type: application/sdp", body=server.described)
        )
        opened(url)
        assert any(asked.uri.endswith("/other/0") and proves(asked, ("5f3c0de1",)) for asked in server.asked)


def test_a_camera_behind_a_relay_is_asked_for_what_was_hashed() -> None:
    """Its address is another at the relay, and a camera that compares the two to the letter plays all the same."""
    with camera(asking(SHA256, QOP, free=("OPTIONS",))) as (server, _), avlab.Relay(server.url) as relay:
        opened(with_login(relay.url))
        plays = next(asked for asked in server.asked if asked.method == "PLAY")
        assert proves(plays, ("5f3c0de1",))
    assert kept_secret(server)


# ---- while it plays


@pytest.mark.parametrize("word", [", stale=true", ""])
def test_a_sign_of_life_that_finds_another_nonce_is_sent_again(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    intervals_ns = iter([NS // 4])  # to the first, and then none that is not sent again
    monkeypatch.setattr(Session, "keep_alive_ns", property(lambda session: next(intervals_ns, 3600 * NS)))
    nonce = ["n1"]

    def guard(asked: Asked) -> bytes | None:
        if asked.method == "GET_PARAMETER":
            nonce[0] = "n2"
        if proves(asked, tuple(nonce)):
            return None
        return refusal(asked, f'Digest realm="cam", nonce="{nonce[0]}", qop="auth"{word}')

    with camera(guard) as (server, url):
        with avlab.Client(url, audio="null", video_over="tcp", audio_over="tcp"):
            until(lambda: any(each.method == "GET_PARAMETER" and proves(each, ("n2",)) for each in server.asked))
        until(lambda: "TEARDOWN" in server.methods)
        assert proves(server.asked[-1], ("n2",))
    assert server.methods.count("GET_PARAMETER") == 2
