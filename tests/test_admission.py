"""Who may join: wrong guesses, stale nonces, counts, relays' addresses; and what a file of users may be."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avlab.stream.joining import CODE_LETTERS, let_class_in, new_code, read_users
from avlab.wire.admission import MOST_WRONG, NONCE_NS, WRONG_GUESSES, Admission, Refusal
from avlab.wire.digest import HASHES, Credentials, parse_schemes, secret_of
from avlab.wire.units import NS

URI, HOST = "rtsp://10.0.0.1:8554/count", "10.0.0.7"


def admission(**passwords: str) -> Admission:
    made = Admission({}, draw=random.Random(1).randbytes)
    for user, password in (passwords or {"ann": "secret"}).items():
        made.let_in(user, password)
    return made


class Asker:
    """A client as it should be, at one address."""

    def __init__(self, door: Admission, user: str = "ann", password: str = "secret", host: str = HOST) -> None:
        self.door, self.host, self.credentials = door, host, Credentials(user, password)
        self.told = ""

    def ask(self, method: str = "DESCRIBE", uri: str = URI, now_ns: int = 0, *, again: bool = False) -> Refusal | None:
        """One request with what it knows by now, or with the very words of the last."""
        if not again:
            self.told = self.credentials.header(method, uri, cnonce="abcd") or ""
        refusal = self.door.check(method, uri, self.told or None, host=self.host, now_ns=now_ns)
        if refusal is not None and refusal.challenges:
            self.credentials.take(", ".join(refusal.challenges), answered=False)
        return refusal


def stale(refusal: Refusal | None) -> bool:
    assert refusal is not None
    assert refusal.status == 401
    return all(each.get("stale") == "true" for value in refusal.challenges for each in parse_schemes(value))


def test_a_stranger_is_challenged_and_whoever_knows_the_password_is_let_in() -> None:
    asker = Asker(admission())
    refusal = asker.ask()
    assert refusal is not None
    assert refusal.status == 401
    assert not refusal.wrong
    # One a header: FFmpeg, GStreamer and live555 take the last of them, and know MD5 alone.
    assert [parse_schemes(value)[0].get("algorithm") for value in refusal.challenges] == ["SHA-256", "MD5"]
    assert [asker.ask(method) for method in ("DESCRIBE", "SETUP", "PLAY", "TEARDOWN")] == [None] * 4


@pytest.mark.parametrize("algorithm", list(HASHES))
@pytest.mark.parametrize("qop", [True, False])
def test_each_algorithm_and_the_old_form_are_let_in(algorithm: str, qop: bool) -> None:
    door = admission()
    refusal = door.check("PLAY", URI, None, host=HOST, now_ns=0)
    assert refusal is not None
    value = next(each for each in refusal.challenges if f"algorithm={algorithm}" in each)
    credentials = Credentials("ann", "secret")
    credentials.take(value if qop else value.replace(', qop="auth"', ""), answered=False)
    told = credentials.header("PLAY", URI, cnonce="c")
    assert ("qop" in (told or "")) is qop
    assert door.check("PLAY", URI, told, host=HOST, now_ns=1) is None


@pytest.mark.parametrize(
    ("user", "password"), [("ann", "Secret"), ("ann", ""), ("bob", "secret"), ("", ""), ("ann", "secret ")]
)
def test_a_wrong_guess_is_one(user: str, password: str) -> None:
    asker = Asker(admission(), user, password)
    asker.ask()
    refusal = asker.ask()
    assert refusal is not None
    assert (refusal.status, refusal.wrong) == (401, True)
    assert not stale(refusal)


def test_five_wrong_guesses_an_address_and_minute() -> None:
    door = admission()
    bad, good, elsewhere = Asker(door, password="x"), Asker(door), Asker(door, host="10.0.0.8")
    for asker in (bad, good, elsewhere):
        asker.ask()
    for second in range(WRONG_GUESSES):
        refusal = bad.ask(now_ns=second * NS)
        assert refusal is not None
        assert refusal.wrong
    for asker in (bad, good):  # the right one is not told from a wrong one
        refusal = asker.ask(now_ns=10 * NS)
        assert refusal is not None
        assert refusal.status == 403
        assert "5 wrong guesses" in refusal.reason
    assert elsewhere.ask(now_ns=10 * NS) is None
    told = good.credentials.header("PLAY", URI, cnonce="c")  # a session that goes on has proved itself before
    assert door.check("PLAY", URI, told, host=HOST, now_ns=11 * NS, proved=True) is None
    assert good.ask(now_ns=60 * NS - 1) is not None
    assert good.ask(now_ns=60 * NS) is None


def test_guesses_from_very_many_addresses_are_bounded_too() -> None:
    door = admission()
    for number in range(MOST_WRONG):
        guesser = Asker(door, password="x", host=f"fe80::{number:x}")
        guesser.ask()
        guesser.ask()
    late = Asker(door, host="10.9.9.9")
    late.ask(now_ns=NS)
    refusal = late.ask(now_ns=NS)
    assert refusal is not None
    assert refusal.status == 403
    assert late.ask(now_ns=61 * NS) is None


def test_a_nonce_goes_stale_and_nobody_is_blamed() -> None:
    asker = Asker(admission())
    asker.ask()
    assert asker.ask(now_ns=NONCE_NS - 1) is None
    refusal = asker.ask(now_ns=NONCE_NS)
    assert stale(refusal)
    assert refusal is not None
    assert not refusal.wrong
    assert asker.ask(now_ns=NONCE_NS) is None


@pytest.mark.parametrize("spoilt", ["of another server", "of another address", "made up", "cut short"])
def test_a_nonce_of_others_is_stale(spoilt: str) -> None:
    door, asker = admission(), Asker(admission(ann="secret"))
    other = Asker(Admission({}, draw=random.Random(2).randbytes)) if spoilt == "of another server" else asker
    other.ask()
    told = other.credentials.header("PLAY", URI, cnonce="c") or ""
    nonce = parse_schemes(told)[0].get("nonce")
    if spoilt == "made up":
        told = told.replace(nonce, f"{NS:016x}" + nonce[16:])
    elif spoilt == "cut short":
        told = told.replace(nonce, nonce[:-1])
    host = "10.0.0.8" if spoilt == "of another address" else HOST
    assert stale(door.check("PLAY", URI, told, host=host, now_ns=2 * NS))


def test_what_was_said_once_does_not_count_twice() -> None:
    asker = Asker(admission())
    asker.ask()
    assert asker.ask("PLAY") is None
    assert stale(asker.ask("PLAY", again=True))
    assert asker.ask("PLAY") is None


def test_counts_may_leave_gaps_and_never_go_back() -> None:
    asker = Asker(admission())
    asker.ask()
    told = [asker.credentials.header("PLAY", URI, cnonce="c") for _ in range(4)]
    checked = [asker.door.check("PLAY", URI, told[at], host=HOST, now_ns=0) is None for at in (1, 3, 2, 0, 3)]
    assert checked == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("said", "asked", "status"),
    [
        ("rtsp://relay:9000/count", "rtsp://10.0.0.1:8554/count", None),  # a relay has led it elsewhere
        ("/count", "rtsp://10.0.0.1:8554/count", None),
        ("rtsp://10.0.0.1:8554/count/", "rtsp://10.0.0.1:8554/count", None),
        ("rtsp://10.0.0.1:8554/a%20b", "rtsp://10.0.0.1:8554/a b", None),
        ("rtsp://10.0.0.1:8554/count?x=1", "rtsp://10.0.0.1:8554/count?x=2", 400),
        ("rtsp://10.0.0.1:8554/other", "rtsp://10.0.0.1:8554/count", 400),
        ("", "rtsp://10.0.0.1:8554/count", 400),
    ],
)
def test_credentials_are_for_the_very_address(said: str, asked: str, status: int | None) -> None:
    asker = Asker(admission())
    asker.ask()
    told = asker.credentials.header("PLAY", said, cnonce="c")
    refusal = asker.door.check("PLAY", asked, told, host=HOST, now_ns=0)
    assert (refusal and refusal.status) == status


def test_credentials_are_for_one_method() -> None:
    asker = Asker(admission())
    asker.ask()
    told = asker.credentials.header("DESCRIBE", URI, cnonce="c")
    refusal = asker.door.check("TEARDOWN", URI, told, host=HOST, now_ns=0)
    assert refusal is not None
    assert refusal.wrong


@settings(max_examples=200)
@given(st.data())
def test_nothing_that_is_spoilt_is_let_in(data: st.DataObject) -> None:
    asker = Asker(admission())
    asker.ask()
    told = asker.credentials.header("PLAY", URI, cnonce="abcd") or ""
    names = ("response", "nonce", "realm", "username", "cnonce", "nc", "qop", "algorithm", "uri")
    name = data.draw(st.sampled_from(names))
    value = parse_schemes(told)[0].get(name)
    at = data.draw(st.integers(0, len(value) - 1))
    put = data.draw(st.sampled_from("0123456789abcdefXYZ- é").filter(lambda c: c.lower() != value[at].lower()))
    spoilt = re.sub(
        rf'(?<![a-z])({name}="?){re.escape(value)}', lambda m: m[1] + value[:at] + put + value[at + 1 :], told
    )
    assert spoilt != told
    assert asker.door.check("PLAY", URI, spoilt, host=HOST, now_ns=0) is not None


@given(st.text())
def test_any_header_is_refused_in_order(value: str) -> None:
    for told in (value, f"Digest {value}", f'Digest response="x", {value}', "Basic YW5uOnNlY3JldA=="):
        refusal = admission().check("PLAY", URI, told, host=HOST, now_ns=5)
        assert refusal is not None
        assert refusal.status in (400, 401)


def test_a_server_keeps_nothing_of_strangers() -> None:
    """Nonces by the hundred thousand cost no memory: only those are kept by which somebody came in."""
    door = admission()
    asker = Asker(door)
    asker.ask()
    for moment in range(2_000):
        door.check("PLAY", URI, None, host="10.0.0.9", now_ns=moment)
    assert asker.ask(now_ns=2_000) is None


def test_nonces_of_which_the_count_is_forgotten_are_good_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avlab.wire.admission.MOST_COUNTED", 2)
    door = admission()
    askers = [Asker(door) for _ in range(3)]
    for moment, asker in enumerate(askers):
        asker.ask(now_ns=moment)
    replayed = askers[0].credentials.header("PLAY", URI, cnonce="c")
    assert door.check("PLAY", URI, replayed, host=HOST, now_ns=9) is None
    assert [asker.ask(now_ns=10) for asker in askers[1:]] == [None, None]
    assert stale(door.check("PLAY", URI, replayed, host=HOST, now_ns=11))


def test_no_secret_is_in_a_repr() -> None:
    door = admission()
    assert "secret" not in repr(door)
    assert secret_of("ann", door.realm, "secret") not in repr(door)


# ---- codes


def test_codes_are_six_letters_that_are_not_mistaken() -> None:
    codes = {new_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(f"[{CODE_LETTERS}]{{6}}", code) for code in codes)
    assert not set("AEIOULQV01") & set(CODE_LETTERS)


def test_a_code_may_be_written_small() -> None:
    door = admission()
    let_class_in(door, "BCDFGH")
    for said, good in (("BCDFGH", True), ("bcdfgh", True), ("BCDFGJ", False)):
        asker = Asker(door, "class", said)
        asker.ask()
        assert (asker.ask() is None) is good


# ---- files of users

MD5_LINE = f"ann:lab:{secret_of('ann', 'lab', 'secret')}"
SHA_LINE = f"ann:lab:{secret_of('ann', 'lab', 'secret', 'SHA-256')}"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "users"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        (MD5_LINE, ["MD5"]),
        (SHA_LINE, ["SHA-256"]),
        (f"# the class\n\n{MD5_LINE}\n{SHA_LINE}\r\n", ["SHA-256", "MD5"]),
        (f"{MD5_LINE.upper().replace('ANN:LAB', 'ann:lab')}\n", ["MD5"]),
    ],
)
def test_lines_of_htdigest_are_read(tmp_path: Path, text: str, offered: list[str]) -> None:
    realm, users = read_users(written(tmp_path, text))
    assert (realm, set(users)) == ("lab", {"ann"})
    door = Admission(users, realm=realm, draw=os.urandom)
    asker = Asker(door)
    refusal = asker.ask()
    assert refusal is not None
    assert [parse_schemes(value)[0].get("algorithm") for value in refusal.challenges] == offered
    assert asker.ask() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no user"),
        ("ann:secret", "line 1 of .* is not of the form user:realm:HASH"),
        (f"{MD5_LINE}\nbob:lab:{'0' * 31}", "line 2"),
        (f":lab:{'0' * 32}", "line 1"),
        (f"ann::{'0' * 32}", "line 1"),
        (f"{MD5_LINE}\nbob:other:{'0' * 32}", "lines of 2 realms"),
    ],
)
def test_what_is_no_file_of_users_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_users(written(tmp_path, text))
    assert "secret" not in str(caught.value)
    assert "0000" not in str(caught.value)


def test_users_of_whom_no_algorithm_is_known_are_refused() -> None:
    users = {"ann": {"MD5": "0" * 32}, "bob": {"SHA-256": "0" * 64}}
    with pytest.raises(ValueError, match="give all of them"):
        Admission(users, draw=os.urandom)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bits")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o660, 0o644])
def test_a_file_of_users_is_its_owners_alone(tmp_path: Path, mode: int) -> None:
    with pytest.raises(PermissionError, match=f"open to others .mode {mode:o}.*chmod 600"):
        read_users(written(tmp_path, MD5_LINE, mode))


def test_no_file_and_no_regular_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file of users at"):
        read_users(tmp_path / "none")
    with pytest.raises((ValueError, PermissionError)):
        read_users(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe", 0o600)
        with pytest.raises(ValueError, match="is no file of users"):
            read_users(tmp_path / "pipe")
