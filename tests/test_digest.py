"""Digest and Basic in headers: what is read, what is answered, by the RFCs' own examples. RFC 7616, RFC 2617."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.digest import Credentials, Scheme, challenge, parse_schemes, quoted, response_of, secret_of, user_of

# RFC 7616 3.9.1
ASKED = [
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
]
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
MD5_RESPONSE = "8ca523f5e9506fed4657c9700eebdbec"
SHA256_RESPONSE = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"

# RFC 2617 3.5
OLD_NONCE, OLD_CNONCE = "dcd98b7102dd2f0e8b11d0f600bfb0c093", "0a4f113b"
OLD_RESPONSE = "6629fae49393a05397450978507c4ef1"
OLD_ASKED = (
    f'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="{OLD_NONCE}", '
    'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)


def answered(*values: str, user: str = "Mufasa", password: str = "Circle of Life", **settings: bool) -> Scheme | None:
    credentials = Credentials(user, password, **settings)
    credentials.take(", ".join(values), answered=False)
    header = credentials.header("GET", "/dir/index.html", cnonce=CNONCE)
    return None if header is None else parse_schemes(header)[0]


# ---- the RFCs' examples


@pytest.mark.parametrize(("at", "response"), [(0, SHA256_RESPONSE), (1, MD5_RESPONSE)], ids=["SHA-256", "MD5"])
def test_the_example_of_rfc_7616(at: int, response: str) -> None:
    told = answered(ASKED[at])
    assert told is not None
    assert told.get("response") == response
    assert (told.get("username"), told.get("realm")) == ("Mufasa", "http-auth@example.org")
    assert (told.get("qop"), told.get("nc"), told.get("cnonce")) == ("auth", "00000001", CNONCE)
    assert told.get("opaque") == "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"


def test_the_example_of_rfc_2617() -> None:
    credentials = Credentials("Mufasa", "Circle Of Life")
    credentials.take(OLD_ASKED, answered=False)
    [told] = parse_schemes(credentials.header("GET", "/dir/index.html", cnonce=OLD_CNONCE) or "")
    assert told.get("response") == OLD_RESPONSE
    assert "algorithm" not in told.parameters  # as it was not in the challenge


def test_a_line_of_htdigest_stands_for_the_password() -> None:
    assert secret_of("Mufasa", "testrealm@host.com", "Circle Of Life") == "939e7578ed9e3c518a452acee763bce9"


def test_without_a_qop_the_old_form_is_answered() -> None:
    told = answered(f'Digest realm="testrealm@host.com", nonce="{OLD_NONCE}"', password="Circle Of Life")
    assert told is not None
    assert told.get("response") == "670fd8c2df070c60b045671b8b24ff02"
    assert not {"qop", "nc", "cnonce"} & set(told.parameters)


def test_the_names_of_rfc_7616s_second_example() -> None:
    [told] = parse_schemes("Digest username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, realm=\"api@example.org\"")
    assert user_of(told) == "Jäsøn Doe"
    told_so = answered('Digest realm="api@example.org", nonce="1", charset=UTF-8', user="Jäsøn Doe")
    assert told_so is not None
    assert told_so.get("username*") == "UTF-8''J%C3%A4s%C3%B8n%20Doe"
    assert user_of(told_so) == "Jäsøn Doe"


@pytest.mark.parametrize("algorithm", ["MD5-sess", "SHA-256-sess", "md5-SESS"])
def test_the_form_for_sessions_hashes_nonce_and_cnonce_into_the_secret(algorithm: str) -> None:
    told = answered(f'Digest realm="r", nonce="n", qop="auth", algorithm={algorithm}')
    assert told is not None
    plain = algorithm.upper().removesuffix("-SESS")
    secret = secret_of("Mufasa", "r", "Circle of Life", plain)
    wanted = response_of(
        secret_of(secret, "n", CNONCE, plain),  # H(H(A1):nonce:cnonce)
        algorithm=plain, nonce="n", method="GET", uri="/dir/index.html", qop="auth", nc="00000001", cnonce=CNONCE,
    )  # fmt: skip
    assert told.get("response") == wanted
    assert told.get("algorithm") == algorithm


# ---- which challenge is answered


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_stronger_algorithm_is_answered_wherever_it_stands(order: tuple[int, int]) -> None:
    told = answered(*(ASKED[at] for at in order))
    assert told is not None
    assert told.get("algorithm") == "SHA-256"


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ('Basic realm="cam"', "basic"),
        ('Digest realm="r", nonce="n", algorithm=SHA-512-256', "Digest with SHA-512-256"),
        ('Digest realm="r", nonce="n", qop="auth-conf"', "Digest with MD5"),
        ("Negotiate", "negotiate"),
        ('Bearer realm="x", error="y", NTLM', "bearer, ntlm"),
        ("", "nothing"),
        ('"', "nothing"),
    ],
)
def test_what_is_not_answered_is_named(asked: str, refusal: str) -> None:
    credentials = Credentials("me", "secret")
    assert not credentials.take(asked, answered=False)
    assert credentials.refusal == refusal
    assert credentials.header("GET", "/", cnonce="c") is None


def test_basic_is_answered_where_it_is_allowed_and_nothing_better_is_asked_for() -> None:
    told = answered('Basic realm="cam"', user="me", password="sec:ret", allow_basic=True)
    assert told is not None
    assert base64.b64decode(told.token) == b"me:sec:ret"
    better = answered('Basic realm="cam"', ASKED[1], allow_basic=True)
    assert better is not None
    assert better.name == "digest"


def test_the_count_rises_with_each_request_and_begins_anew_with_each_nonce() -> None:
    credentials = Credentials("me", "secret")
    counts = []
    for nonce in ("a", "a", "b"):
        credentials.take(f'Digest realm="r", nonce="{nonce}", qop="auth"', answered=False)
        counts += [parse_schemes(credentials.header("GET", "/", cnonce="c") or "")[0].get("nc") for _ in range(2)]
    assert counts == ["00000001", "00000002"] * 3


def test_another_try_is_worth_while_only_with_another_nonce() -> None:
    credentials = Credentials("me", "secret")
    assert credentials.take('Digest realm="r", nonce="a"', answered=False)
    assert not credentials.take('Digest realm="r", nonce="b"', answered=True)  # the password is wrong
    assert credentials.take('Digest realm="r", nonce="c", stale=TRUE', answered=True)
    assert not credentials.take('Digest realm="r", nonce="c", stale=true', answered=True)


def test_a_password_is_in_no_repr_and_no_header() -> None:
    credentials = Credentials("me", "topsecret", allow_basic=True)
    credentials.take(ASKED[0], answered=False)
    header = credentials.header("GET", "/", cnonce="c") or ""
    credentials.take('Basic realm="x"', answered=False)
    [basic] = parse_schemes(credentials.header("GET", "/", cnonce="c") or "")
    seen = [header, repr(credentials), str(vars(basic) if hasattr(basic, "__dict__") else basic), repr(basic)]
    secrets = ("topsecret", base64.b64encode(b"me:topsecret").decode())
    assert not [text for text in seen for secret in secrets if secret in text]


# ---- reading


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('Digest realm="a, b", nonce="c=d"', [("digest", {"realm": "a, b", "nonce": "c=d"})]),
        ("digest  REALM = x ,nonce=y", [("digest", {"realm": "x", "nonce": "y"})]),
        (r'Digest realm="a\"b\\c"', [("digest", {"realm": 'a"b\\c'})]),
        ('Digest realm="no end', [("digest", {"realm": "no end"})]),
        ('Digest realm="a" nonce="b"', [("digest", {"realm": "a", "nonce": "b"})]),  # without commas
        ('Digest realm="a",,, ;; nonce="b"', [("digest", {"realm": "a", "nonce": "b"})]),
        ('Digest realm="a", realm="b"', [("digest", {"realm": "a"})]),
        ('Basic realm="a", Digest realm="b"', [("basic", {"realm": "a"}), ("digest", {"realm": "b"})]),
        ("NTLM, Basic realm=a", [("ntlm", {}), ("basic", {"realm": "a"})]),
        ('realm="a"', []),
        ("  ,, ", []),
    ],
)
def test_headers_are_read(value: str, read: list[tuple[str, dict[str, str]]]) -> None:
    assert [(each.name, dict(each.parameters)) for each in parse_schemes(value)] == read


@given(st.text(), st.text())
def test_what_is_quoted_is_read_again(realm: str, nonce: str) -> None:
    [told] = parse_schemes(challenge(realm, nonce, stale=True))
    shown = ["".join(c for c in text if c >= " " and c != "\x7f") for text in (realm, nonce)]
    assert [told.get("realm"), told.get("nonce")] == shown
    assert (told.get("stale"), told.get("qop"), told.get("algorithm")) == ("true", "auth", "MD5")
    assert not set("\r\n") & set(quoted(realm))


@given(st.text(alphabet='Digest realm="\\,; nonce=Basic\t\x00é'))
def test_any_header_is_read_or_passed_over(value: str) -> None:
    for each in parse_schemes(value):
        assert each.name == each.name.lower()
    credentials = Credentials("me", "secret", allow_basic=True)
    credentials.take(value, answered=False)
    header = credentials.header("GET", "/", cnonce="c")
    assert header is None or not set("\r\n") & set(header)


def test_a_long_header_takes_no_time() -> None:
    for piece in ('"', "a ", 'a="', "a=", "=", "\\", "; ", "a" * 100, "Basic a=,"):
        assert len(parse_schemes(piece * (65_536 // len(piece)))) <= 64
