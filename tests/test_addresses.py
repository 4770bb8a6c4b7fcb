"""Where a server on all addresses can be reached: what is found is this machine's own, and told as it is typed."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from urllib.parse import urlsplit

import commands
import psutil
import pytest

from avlab.stream.sockets import addresses
from avlab.stream.sockets.addresses import OwnAddress, own_addresses, ways_in


def known_to_psutil(family: int) -> set[str]:
    """The addresses of the interfaces that are up."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    there = psutil.net_if_addrs().items()
    return {one.address for name, all_ in there if name in up for one in all_ if one.family == family}


@pytest.mark.parametrize(("host", "families"), [("0.0.0.0", {4}), ("::", {4, 6}), ("", {4})])
def test_every_address_of_this_machine_is_found(host: str, families: set[int]) -> None:
    found = own_addresses(host)
    assert {ipaddress.ip_address(one.host.partition("%")[0]).version for one in found} <= families
    assert known_to_psutil(socket.AF_INET) <= {one.host for one in found}
    if 6 in families:
        assert known_to_psutil(socket.AF_INET6) <= {one.host for one in found}
    assert len({one.host for one in found}) == len(found)
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds, key=["global", "link-local", "loopback"].index)


def test_what_is_found_can_be_listened_on() -> None:
    for own in own_addresses("::"):
        family, kind, _, _, address = socket.getaddrinfo(own.host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.bind(address)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_getifaddrs_names_and_routes_are_asked(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    whole = {one.host for one in own_addresses(host)}
    monkeypatch.setattr(addresses, "interface_addresses", list)
    assert {one.host for one in own_addresses(host) if one.kind != "loopback"} <= whole


def test_a_machine_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(addresses, "interface_addresses", list)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    assert own_addresses("0.0.0.0") == []
    assert ways_in("rtsp://127.0.0.1:8554/count", "0.0.0.0") == [
        "from other machines: not at all, as this one has no address in a network"
    ]


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("169.254.3.4", "link-local"),
        ("192.0.2.7", "global"),
        ("2001:db8::7", "global"),
        ("fd00::7", "global"),
    ],
)
def test_one_address_is_what_it_is(host: str, kind: str) -> None:
    assert own_addresses(host) == [OwnAddress(host, kind)]
    assert ways_in(f"rtsp://{host}:8554/count", host) == []


def test_each_is_told_as_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["127.0.0.1", "::1", "10.0.0.9", "10.0.0.10", "2001:db8::5", "fe80::1%en0", "169.254.3.4"]
    monkeypatch.setattr(addresses, "interface_addresses", lambda: there)
    monkeypatch.setattr(addresses, "name_addresses", list)
    monkeypatch.setattr(addresses, "routed_addresses", lambda: ["10.0.0.9"])
    assert ways_in("rtsp://[::1]:8554/a%20b", "::") == [
        "from other machines: rtsp://10.0.0.9:8554/a%20b",
        "from other machines: rtsp://10.0.0.10:8554/a%20b",
        "from other machines: rtsp://[2001:db8::5]:8554/a%20b",
        "from the same cable or Wi-Fi: rtsp://169.254.3.4:8554/a%20b",
        "from the same cable or Wi-Fi: rtsp://[fe80::1%en0]:8554/a%20b (for en0, put that machine's own interface)",
    ]
    assert ways_in("classic://127.0.0.1:9688", "0.0.0.0") == [
        "from other machines: classic://10.0.0.9:9688",
        "from other machines: classic://10.0.0.10:9688",
        "from the same cable or Wi-Fi: classic://169.254.3.4:9688",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
def test_serve_says_where_it_can_be_reached(data: Path, host: str) -> None:
    done = commands.run("serve", data / "count.mp4", "--host", host, "--port", 0, "--seconds", 3)
    assert (done.returncode, done.stderr) == (0, "")
    first, *told = [line.strip() for line in done.stdout.partition("play it:")[0].rstrip().splitlines()]
    url = first.removeprefix(f"serving {data / 'count.mp4'} at ")
    assert told == ways_in(url, host)
    assert done.stdout.endswith("nobody has played it\n")
    assert all(f":{urlsplit(url).port}/count" in line for line in told if "rtsp" in line)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_relay_on_every_address_says_which_there_are(host: str) -> None:
    said = commands.run(
        "relay", "--to", "rtsp://127.0.0.1:1/clip", "--host", host, "--listen", "0", "--seconds", "0.1"
    ).stdout
    assert "relaying to rtsp://127.0.0.1:1/clip at rtsp://127.0.0.1:" in said
    assert ("from other machines: " in said or "from the same cable" in said) is (host == "0.0.0.0")
