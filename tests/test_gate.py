"""Which requests of a browser are heard: literal headers, no server."""

from __future__ import annotations

import hashlib
import random

import pytest

from avlab.stream.http.gate import MOST_TICKETS, TICKET_NS, TOKEN_LENGTH, Denied, Gate
from avlab.stream.joining import CODE_LETTERS, let_class_in
from avlab.wire.admission import WRONG_GUESSES, Admission
from avlab.wire.digest import Credentials
from avlab.wire.units import NS

PORT = 8080
CODE = "BCDFGH"


def gate(host: str = "127.0.0.1", *, admission: Admission | None = None, by_code: bool = False) -> Gate:
    made = Gate(host, admission=admission, by_code=by_code)
    made.port = PORT
    return made


def admission(*, code: bool = True) -> Admission:
    rng = random.Random(1)
    secret = hashlib.md5(b"ada:avlab:lovelace").hexdigest()
    made = Admission({} if code else {"ada": {"MD5": secret}}, draw=rng.randbytes)
    if code:
        let_class_in(made, CODE)
    return made


def placed(
    headers: dict[str, str], *, local: str = "127.0.0.1", host: str = "127.0.0.1", page: bool = False, ws: bool = False
) -> bool:
    denied = gate(host).check_place(headers, local=local, page=page, websocket=ws)
    assert denied is None or (denied.status == 403 and denied.words.endswith("."))
    return denied is None


@pytest.mark.parametrize(
    ("host", "local", "heard"),
    [
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("localhost:8080", "127.0.0.1", True),
        ("LOCALHOST.:8080", "127.0.0.1", True),
        ("[::1]:8080", "::1", True),
        ("[::1]:8080", "127.0.0.1", True),  # loopback is loopback
        ("10.0.0.7:8080", "10.0.0.7", True),
        ("10.0.0.7:8080", "::ffff:10.0.0.7", True),  # as a socket of both families says it
        ("[fe80::1]:8080", "fe80::1%eth0", True),
        ("127.0.0.1", "127.0.0.1", False),  # port 80, and it listens at another
        ("127.0.0.1:8081", "127.0.0.1", False),
        ("10.0.0.8:8080", "10.0.0.7", False),
        ("localhost:8080", "10.0.0.7", False),
        ("evil.example:8080", "127.0.0.1", False),  # a name of theirs that leads here: DNS rebinding
        ("evil.example:8080", "10.0.0.7", False),
        ("127.0.0.1.evil.example:8080", "127.0.0.1", False),
        ("127.0.0.1:8080@evil.example", "127.0.0.1", False),
        ("127.0.0.1:8080/evil", "127.0.0.1", False),
        ("0.0.0.0:8080", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("127.0.0.1:99999999", "127.0.0.1", False),
    ],
)
def test_only_an_own_name_is_answered_to(host: str, local: str, heard: bool) -> None:
    assert placed({"Host": host}, local=local) is heard


def test_the_machine_s_name_and_the_one_that_was_told_are_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Laptop")
    for name in ("laptop", "laptop.local", "LAPTOP"):
        assert placed({"Host": f"{name}:8080"}, local="10.0.0.7", host="0.0.0.0")
    assert placed({"Host": "school.example:8080"}, local="10.0.0.7", host="school.example")
    assert not placed({"Host": "laptop.evil.example:8080"}, local="10.0.0.7", host="0.0.0.0")
    assert not placed({"Host": "0.0.0.0:8080"}, local="10.0.0.7", host="0.0.0.0")


OWN = {"Host": "127.0.0.1:8080"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}


@pytest.mark.parametrize(
    ("headers", "what", "heard"),
    [
        ({}, "", True),  # a player
        ({}, "page", True),
        ({}, "ws", False),  # a browser says where it comes from
        ({"Origin": "http://127.0.0.1:8080"}, "ws", True),
        ({"Origin": "http://127.0.0.1:8080"}, "", True),
        ({"Origin": "HTTP://127.0.0.1:8080"}, "ws", True),
        ({"Origin": "https://127.0.0.1:8080"}, "ws", False),
        ({"Origin": "http://localhost:8080"}, "ws", False),  # another name is another origin
        ({"Origin": "http://127.0.0.1:8888"}, "ws", False),
        ({"Origin": "http://127.0.0.1"}, "ws", False),
        ({"Origin": "http://evil.example"}, "", False),
        ({"Origin": "http://evil.example"}, "page", False),
        ({"Origin": "http://127.0.0.1:8080.evil.example"}, "", False),
        ({"Origin": "null"}, "", False),  # a sandboxed frame, a file
        ({"Origin": ""}, "", False),
        ({"Origin": "http://[::"}, "", False),
        ({"Sec-Fetch-Site": "same-origin"}, "", True),
        ({"Sec-Fetch-Site": "none"}, "", True),  # typed
        ({"Sec-Fetch-Site": "cross-site"}, "", False),  # an <img> of another page
        ({"Sec-Fetch-Site": "same-site"}, "", False),  # another port of this machine
        ({"Sec-Fetch-Site": "cross-site"}, "page", False),
        (LINK, "page", True),  # a link on another page
        (LINK, "", False),  # but not straight to the pictures
        (LINK | {"Sec-Fetch-Dest": "iframe"}, "page", False),
        ({"Referer": "http://127.0.0.1:8080/x"}, "", True),
        ({"Referer": "http://evil.example/x"}, "", False),  # a browser without Sec-Fetch-Site
        ({"Referer": "http://school.example/lesson"}, "page", True),
    ],
)
def test_no_page_of_another_origin_has_a_browser_ask(headers: dict[str, str], what: str, heard: bool) -> None:
    assert placed(OWN | headers, page=what == "page", ws=what == "ws") is heard


def test_an_address_beyond_this_machine_has_a_token_that_nobody_guesses() -> None:
    assert gate("127.0.0.1").token == gate("localhost").token == gate("::1").token == ""
    tokens = {gate(host).token for host in ("0.0.0.0", "::", "10.0.0.7", "school.example") for _ in range(20)}
    assert len(tokens) == 80
    for token in tokens:
        assert len(token) == TOKEN_LENGTH
        assert set(token) <= set(CODE_LETTERS.lower())
    opened = gate("0.0.0.0")
    assert opened.check_token(opened.token) is None
    assert opened.check_token(opened.token.upper()) is None  # phones begin with a capital letter
    for wrong in ("", opened.token[:-1], "page.js", "\u00df", next(iter(tokens))):
        denied = opened.check_token(wrong)
        assert denied is not None
        assert denied.status == 403


def asked(
    judge: Gate, *, authorization: str | None = None, ticket: str | None = None, now_ns: int = 0
) -> Denied | None:
    return judge.check_person(
        "GET", "/stream", authorization=authorization, ticket=ticket, host="10.0.0.9", now_ns=now_ns
    )


def test_where_nobody_is_asked_everybody_may_join() -> None:
    assert asked(gate()) is None
    assert not gate().asks


@pytest.mark.parametrize(("user", "password", "code"), [("class", CODE, True), ("ada", "lovelace", False)])
def test_digest_lets_in_who_knows_the_password(user: str, password: str, code: bool) -> None:
    judge = gate(admission=admission(code=code), by_code=code)
    denied = asked(judge)
    assert denied is not None
    assert denied.status == 401
    assert len(denied.challenges) == (2 if code else 1)  # a file of users has one algorithm
    assert ("code" in denied.words) is code
    for secret, status in ((password, None), ("wrong", 401)):
        known = Credentials(user, secret)
        assert known.take(", ".join(denied.challenges), answered=False)
        answer = asked(judge, authorization=known.header("GET", "/stream", cnonce="1"))
        assert (answer and answer.status) == status


def test_a_code_that_is_typed_gives_a_ticket_and_wrong_ones_are_counted() -> None:
    judge = gate(admission=admission(), by_code=True)
    assert judge.check_code(" bcd-fgh ", host="10.0.0.9", now_ns=0) is None
    ticket = judge.ticket(0)
    assert asked(judge, ticket=ticket) is None
    assert asked(judge, ticket=ticket, now_ns=TICKET_NS) is not None
    assert asked(judge, ticket=ticket[:-1]) is not None
    odd = judge.check_code("12 34", host="10.0.0.9", now_ns=0)  # and no guess
    assert odd is not None
    assert not odd.wrong
    for _ in range(WRONG_GUESSES):
        wrong = judge.check_code("ZZZZZZ", host="10.0.0.9", now_ns=0)
        assert wrong is not None
        assert wrong.wrong
    blocked = judge.check_code(CODE, host="10.0.0.9", now_ns=NS)
    assert blocked is not None
    assert "wait a minute" in blocked.words
    assert judge.check_code(CODE, host="10.0.0.10", now_ns=NS) is None  # another address
    assert judge.check_code(CODE, host="10.0.0.9", now_ns=61 * NS) is None
    assert asked(judge, ticket=ticket, now_ns=NS) is None  # who is in stays in


def test_tickets_do_not_fill_the_memory() -> None:
    judge = gate(admission=admission(), by_code=True)
    first = judge.ticket(0)
    tickets = [judge.ticket(0) for _ in range(MOST_TICKETS)]
    assert asked(judge, ticket=first) is not None
    assert asked(judge, ticket=tickets[0]) is None
    assert len(set(tickets)) == len(tickets)


def test_a_typed_password_is_a_user_s_own() -> None:
    judge = admission(code=False)
    assert judge.check_password("ada", "lovelace", host="10.0.0.9", now_ns=0) is None
    for user, password in (("ada", "Lovelace"), ("bob", "lovelace"), ("bob", ""), ("", "")):
        refusal = judge.check_password(user, password, host=user, now_ns=0)
        assert refusal is not None
        assert refusal.wrong
