"""Addresses: what is connected to, what requests name, and that no password is seen."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.urls import Place, redacted, request_uri, same_host, track_of


@pytest.mark.parametrize(
    ("url", "host", "port", "uri"),
    [
        ("rtsp://host:8554/clip", "host", 8554, "rtsp://host:8554/clip"),
        ("RTSP://Host/clip", "host", 554, "RTSP://Host/clip"),
        ("rtsp://host", "host", 554, "rtsp://host"),
        ("rtsp://host/cam?channel=1&subtype=0", "host", 554, "rtsp://host/cam?channel=1&subtype=0"),
        ("rtsp://me:secret@host:554/clip", "host", 554, "rtsp://host:554/clip"),
        ("rtsp://me:se@cret@host/clip", "host", 554, "rtsp://host/clip"),
        ("rtsp://me@host/clip", "host", 554, "rtsp://host/clip"),
        ("rtsp://host/me@home", "host", 554, "rtsp://host/me@home"),
        ("rtsp://[::1]:8554/clip", "::1", 8554, "rtsp://[::1]:8554/clip"),
        ("rtsp://me:secret@[2001:db8::1]/clip", "2001:db8::1", 554, "rtsp://[2001:db8::1]/clip"),
        ("rtsp://[fe80::1%25eth0]:554/clip", "fe80::1%eth0", 554, "rtsp://[fe80::1]:554/clip"),
        ("rtsp://[fe80::1%eth0]:554/clip", "fe80::1%eth0", 554, "rtsp://[fe80::1]:554/clip"),
        ("rtsp://host/my clip", "host", 554, "rtsp://host/my%20clip"),
        ("rtsp://host/Türkamera", "host", 554, "rtsp://host/T%C3%BCrkamera"),
        ("rtsp://host/a%20b", "host", 554, "rtsp://host/a%20b"),
    ],
)
def test_an_address_is_taken_apart(url: str, host: str, port: int, uri: str) -> None:
    place = Place.parse(url)
    assert (place.host, place.port, place.uri) == (host, port, uri)
    assert "secret" not in repr(place)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert Place.parse("rtsp://[fe80::1%25eth0]:9/x").where == "[fe80::1%eth0]:9"
    assert Place.parse("rtsp://host:9/x").where == "host:9"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "count.mp4",
        "http://host/x",
        "rtsps://host/x",
        "rtsp://",
        "rtsp:///x",
        "rtsp://:8554/x",
        "rtsp://host:0/x",
        "rtsp://host:99999/x",
        "rtsp://host:port/x",
        "rtsp://[x",
        "rtsp://[::1/x",
        "rtsp://a℀b/x",
        "rtsp://a\\b/x",
        "rtsp://me:se/secret@host/x",
        "rtsp://me:secret@host:port/x",
        "rtsp://me:#secret@host/x",
        "rtsp://me:?secret@host/x",
        "http://me:secret@host/x",
    ],
)
def test_what_is_no_address_is_said_without_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"is no address to play: write it as rtsp://host:port/path") as caught:
        Place.parse(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for url in (text, f"rtsp://{text}", f"rtsp://me:secret@{text}/x"):
        redacted(url), track_of(url), same_host(url, text)
        with contextlib.suppress(ValueError):
            place = Place.parse(url)
            assert not any(letter.isspace() for letter in place.uri)
            assert place.uri.isascii()


@given(st.text(st.characters(exclude_characters="/?#"), max_size=20))
def test_no_password_is_in_a_request(password: str) -> None:
    for url in (request_uri(f"rtsp://me:{password}@host/x"), redacted(f"rtsp://me:{password}@host/x")):
        assert url == "rtsp://host/x"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rtsp://10.0.0.1:554/cam?channel=1/trackID=1", "rtsp://camera/cam?channel=1/trackID=1/"),
        ("rtsp://host/a%20b/video", "rtsp://host/a b/video"),
        ("trackID=1", "/trackID=1"),
    ],
)
def test_one_track_has_several_addresses(one: str, other: str) -> None:
    assert track_of(one) == track_of(other)


def test_two_tracks_that_differ_in_the_query_alone_are_two() -> None:
    assert track_of("rtsp://host/clip?x=1/video") != track_of("rtsp://host/clip?x=1/audio")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("FE80::1", "fe80::1", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("fe80::1%eth0", "fe80::1%eth1", False),
        ("fe80::1%eth0", "fe80::2", False),
        ("127.0.0.1", "::1", False),
        ("localhost", "LOCALHOST", True),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_addresses_are_compared_as_addresses(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same
    assert same_host(other, one) is same
