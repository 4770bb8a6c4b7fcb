"""The links over real loopback sockets: batches, refusals, bounded queues, wake-ups."""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawclient import until

from avlab.stream.sockets import links
from avlab.stream.sockets.links import TcpLink, UdpLink, Waker, interest, listen, udp_pair
from avlab.wire.batch import Batch

linux = sys.platform.startswith("linux")


class Pair:
    """Two UDP links; `carry` sends from one and gathers what arrives at the other."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.here, self.there = UdpLink(host), UdpLink(host)
        self.to = (host, self.there.port)

    def carry(self, packets: list[bytes]) -> list[bytes]:
        assert self.here.send(packets, self.to) == len(packets)
        got: list[bytes] = []

        def all_there() -> bool:
            got.extend(data for data, _ in self.there.receive())
            return len(got) >= len(packets)

        until(all_there)
        return got

    def close(self) -> None:
        self.here.close()
        self.there.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture
def tcp() -> Iterator[tuple[TcpLink, socket.socket]]:
    """A link with little room to send, and the far end of its connection."""
    listener = listen("127.0.0.1", 0)
    far = socket.socket()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    far.settimeout(60)
    far.connect(listener.getsockname())
    until(lambda: selectable(listener))
    near, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link = TcpLink(near)
    yield link, far
    link.close()
    far.close()
    listener.close()


def selectable(sock: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0.1))


def packet(number: int, size: int) -> bytes:
    return number.to_bytes(2, "big") * (size // 2) + b"x" * (size % 2)


BATCHES = {
    "one": [1200],
    "a frame: equal packets and a shorter last": [1200] * 12 + [431],
    "equal packets alone": [1200] * 20,
    "more than one burst carries": [1200] * 130,
    "all of different sizes": [100, 101, 102, 99, 1],
    "sound: pairs": [1188, 1188, 1188, 1188],
    "shorter, then longer": [500, 500, 100, 700, 700, 20],
    "tiny": [1] * 100,
    "empty ones": [0] * 3,
    "empty ones among others": [0, 0, 300, 300, 0, 200, 0, 300, 0],
}


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=list(BATCHES))
@pytest.mark.parametrize("segment", [True, False], ids=["bursts", "singly"])
@pytest.mark.parametrize("gather", [True, False], ids=["gathered", "one by one"])
def test_every_packet_arrives_whole_and_in_order(pair: Pair, sizes: list[int], segment: bool, gather: bool) -> None:
    pair.here.can_segment &= segment
    pair.there.gathers &= gather
    if not gather and linux:
        pair.there.socket.setsockopt(socket.IPPROTO_UDP, links.UDP_GRO, 0)
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    assert pair.carry(packets) == packets


@settings(max_examples=200)
@given(st.lists(st.integers(0, 2000) | st.sampled_from([0, 1, 700]), max_size=150))
def test_bursts_hold_what_one_segmented_send_may(sizes: list[int]) -> None:
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    bursts = links.bursts(packets)
    assert [one for burst in bursts for one in burst] == packets
    for burst in bursts:
        assert 1 <= len(burst) <= links.MAX_SEGMENTS
        assert sum(map(len, burst)) <= 65_507
        assert len({len(one) for one in burst[:-1]}) <= 1
        assert len(burst[-1]) <= len(burst[0])
        assert len(burst) == 1 or all(burst)  # in a larger one an empty packet would be lost


@pytest.mark.parametrize("segment", [True, False], ids=["bursts", "singly"])
def test_datagrams_of_one_size_and_sender_come_as_one_batch(pair: Pair, segment: bool) -> None:
    other = UdpLink("127.0.0.1")
    pair.here.offload = segment
    sizes = [1182] * 9 + [300]
    packets = [packet(number, size) for number, size in enumerate(sizes)]
    pair.here.send(packets, pair.to)
    other.send([b"a", b"b", b""], pair.to)
    pair.here.send([b"last"], pair.to)
    until(lambda: selectable(pair.there.socket))
    found: list[tuple[Batch, Any]] = []
    until(lambda: found.extend(pair.there.receive_batches()) or sum(max(1, batch.total) for batch, _ in found) == 14)
    if len(found) == 4:  # all of it was there at the first look, as it is on any machine but a very busy one
        assert found[0] == (Batch(b"".join(packets), 1182), ("127.0.0.1", pair.here.port))
        assert [batch.data for batch, _ in found[1:]] == [b"ab", b"", b"last"]
        assert found[1][0].size == 1
    assert b"".join(batch.data for batch, _ in found) == b"".join([*packets, b"ab", b"last"])
    assert {address[1] for _, address in found} == {pair.here.port, other.port}
    other.close()


class InPieces:
    """A socket to which a burst comes in the pieces that a sender's system makes of it, each as it is waited for."""

    def __init__(self, real: socket.socket, datagrams: list[bytes], *, at_once: int) -> None:
        size = len(datagrams[0])
        most = min(links.MAX_SEGMENTS, links.MAX_BURST // size)
        self.pieces = [(size, b"".join(datagrams[at : at + most])) for at in range(0, len(datagrams), most)]
        self.real, self.there, self.waited = real, at_once, 0

    def recvmsg_into(self, buffers: list[memoryview], room: int) -> tuple[int, Any, int, Any]:
        if not self.pieces or not self.there:
            raise BlockingIOError
        self.there -= 1
        size, data = self.pieces.pop(0)
        buffers[0][: len(data)] = data
        gathered = [(socket.IPPROTO_UDP, links.UDP_GRO, size.to_bytes(2, sys.byteorder))]
        return len(data), gathered if len(data) > size else [], 0, ("127.0.0.1", 9)

    def select(self, *_: Any) -> tuple[list[Any], list[Any], list[Any]]:
        self.waited += 1
        self.there += bool(self.pieces)
        return [self] if self.pieces else [], [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("at_once", [1, 2, 9])
@pytest.mark.parametrize(("size", "count"), [(1200, 113), (1200, 55), (1450, 150), (8000, 17), (600, 200)])
def test_a_picture_in_several_pieces_is_read_in_one_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, size: int, count: int, at_once: int
) -> None:
    datagrams = [packet(number, size) for number in range(count - 1)] + [packet(count, size // 2)]
    pieces = InPieces(pair.there.socket, datagrams, at_once=at_once)
    monkeypatch.setattr("select.select", pieces.select)
    pair.there.socket, pair.there.gathers = pieces, True  # type: ignore[assignment]
    expected = len(pieces.pieces)
    assert pair.there.receive_batches() == [(Batch(b"".join(datagrams), size), ("127.0.0.1", 9))]
    assert pieces.waited == max(0, expected - at_once)  # the last piece is shorter than others may be


def test_only_the_rest_of_a_burst_is_waited_for_and_not_for_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for count, waits in ((1, 0), (20, 0), (53, 0), (54, 1)):
        pieces = InPieces(pair.there.socket, [packet(number, 1200) for number in range(count)], at_once=1)
        monkeypatch.setattr("select.select", pieces.select)
        pair.there.socket, pair.there.gathers = pieces, True  # type: ignore[assignment]
        [(batch, _)] = pair.there.receive_batches()
        assert (batch.total, pieces.waited) == (count, waits)  # once, and in vain
        assert pair.there.receive_batches() == []
        assert pieces.waited == waits


@pytest.mark.parametrize("count", [2, 20, 53, 60, 113])
def test_a_burst_that_has_ended_is_handed_on_and_the_next_one_is_for_the_next_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    first = [packet(number, 1200) for number in range(count - 1)] + [packet(count, 700)]
    pieces = InPieces(pair.there.socket, first, at_once=1 << 20)
    pieces.pieces += InPieces(pair.there.socket, first, at_once=1 << 20).pieces
    monkeypatch.setattr("select.select", pieces.select)
    pair.there.socket, pair.there.gathers = pieces, True  # type: ignore[assignment]
    read = []
    while found := pair.there.receive_batches():
        read.append([(batch, address) for batch, address in found])
    whole = [(Batch(b"".join(first), 1200), ("127.0.0.1", 9))]
    assert read in ([whole, whole], [whole + whole])
    if count % 53 > 1:  # its last piece has several packets, and is no full one
        assert read == [whole, whole]
    assert pieces.waited == 0


def test_a_flood_in_pieces_leaves_the_others_their_turn(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    datagrams = [packet(number, 1200) for number in range(5400)]
    pieces = InPieces(pair.there.socket, datagrams, at_once=1 << 20)
    monkeypatch.setattr("select.select", pieces.select)
    pair.there.socket, pair.there.gathers = pieces, True  # type: ignore[assignment]
    read = [data for batch, _ in pair.there.receive_batches() for data in batch.datagrams()]
    assert read == datagrams[: len(read)]
    assert sum(map(len, read)) <= links.ROOM + links.DATAGRAM


def test_the_address_of_the_sender_is_told(pair: Pair) -> None:
    pair.here.send([b"hello"], pair.to)
    until(lambda: selectable(pair.there.socket))
    assert pair.there.receive() == [(b"hello", ("127.0.0.1", pair.here.port))]
    assert pair.there.receive() == []


@pytest.mark.parametrize("count", [1, 20])
def test_a_port_where_nobody_listens_is_no_error(pair: Pair, count: int) -> None:
    gone = UdpLink("127.0.0.1")
    to = ("127.0.0.1", gone.port)
    gone.close()
    for _ in range(5):
        assert pair.here.send([b"a" * 100] * count, to) == count
        assert pair.here.receive() == []
    packets = [packet(number, 300) for number in range(count)]
    assert pair.carry(packets) == packets  # and the next one, elsewhere, is not harmed


class Refusing:
    """A socket whose segmented sends, all or those to one address, fail with an error of its system."""

    def __init__(self, real: socket.socket, error: int, to: Any = None) -> None:
        self.real, self.error, self.to, self.asked = real, error, to, 0

    def sendmsg(self, packets: list[bytes], control: Any, flags: int, to: Any) -> int:
        self.asked += 1
        if self.to in (None, to):
            raise OSError(self.error, "refused")
        return sum(self.real.sendto(packet, to) for packet in packets)  # as a system does that cuts them up

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_a_device_that_cannot_segment_is_not_asked_again(pair: Pair, error: int) -> None:
    refusing = Refusing(pair.here.socket, error)
    pair.here.can_segment, pair.here.socket = True, refusing  # type: ignore[assignment]
    packets = [packet(number, 700) for number in range(10)]
    assert pair.carry(packets) == packets
    assert pair.carry(packets) == packets
    assert refusing.asked == 1


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EMSGSIZE])
def test_a_destination_that_takes_no_bursts_spoils_them_for_no_other(pair: Pair, error: int) -> None:
    other = UdpLink("127.0.0.1")
    refusing = Refusing(pair.here.socket, error, ("127.0.0.1", other.port))
    pair.here.can_segment, pair.here.socket = True, refusing  # type: ignore[assignment]
    packets = [packet(number, 700) for number in range(10)]
    for _ in range(3):
        assert pair.here.send(packets, ("127.0.0.1", other.port)) == 10  # singly, and only the first time in vain
        assert pair.carry(packets) == packets
    assert refusing.asked == 1 + 3
    assert len(other.receive(100)) == 30
    other.close()


def test_a_port_that_cannot_be_costs_the_others_nothing(pair: Pair) -> None:
    packets = [packet(number, 700) for number in range(10)]
    before = pair.here.segments
    assert pair.here.send(packets, ("127.0.0.1", 0)) == 0
    assert pair.carry(packets) == packets
    assert pair.here.segments == before


def test_destinations_without_end_are_not_remembered_without_end(pair: Pair) -> None:
    refusing = Refusing(pair.here.socket, errno.EINVAL)
    pair.here.can_segment, pair.here.socket = True, refusing  # type: ignore[assignment]
    for port in range(links.REMEMBERED + 1):
        pair.here.send([b"one", b"two"], ("127.0.0.1", port + 1))
    assert refusing.asked == links.REMEMBERED + 1
    pair.here.send([b"one", b"two"], ("127.0.0.1", 2))  # is remembered, as all but the oldest are
    assert refusing.asked == links.REMEMBERED + 1
    pair.here.send([b"one", b"two"], ("127.0.0.1", 1))  # the oldest is tried anew
    assert refusing.asked == links.REMEMBERED + 2


def test_without_offload_each_packet_is_sent_by_itself(pair: Pair) -> None:
    refusing = Refusing(pair.here.socket, errno.EIO)
    pair.here.socket = refusing  # type: ignore[assignment]
    pair.here.offload = False
    assert not pair.here.segments
    packets = [packet(number, 700) for number in range(10)]
    assert pair.carry(packets) == packets
    assert refusing.asked == 0
    pair.here.offload = True
    assert pair.here.segments == linux


def test_a_refused_port_does_not_end_segmenting(pair: Pair) -> None:
    refusing = Refusing(pair.here.socket, errno.ECONNREFUSED)
    pair.here.can_segment, pair.here.socket = True, refusing  # type: ignore[assignment]
    packets = [packet(number, 700) for number in range(10)]
    assert pair.carry(packets) == packets
    assert pair.here.can_segment


class Told:
    """A socket that tells of so many errors before it receives."""

    def __init__(self, real: socket.socket, error: int, times: int) -> None:
        self.real, self.error, self.left = real, error, times

    def recvmsg_into(self, *arguments: Any) -> Any:
        return self._tell() or self.real.recvmsg_into(*arguments)

    def recvfrom(self, *arguments: Any) -> Any:
        return self._tell() or self.real.recvfrom(*arguments)

    def _tell(self) -> None:
        if self.left:
            self.left -= 1
            raise OSError(self.error, "as told")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("gather", [True, False], ids=["gathered", "one by one"])
@pytest.mark.parametrize(
    "error",
    [
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EMSGSIZE,
        errno.EPROTO,
        errno.EACCES,
    ],
)
def test_what_became_of_earlier_datagrams_harms_no_later_one(pair: Pair, error: int, gather: bool) -> None:
    pair.there.gathers &= gather
    for times in (1, 3, 40):
        pair.there.socket = Told(pair.there.socket, error, times)  # type: ignore[assignment]
        assert pair.carry([b"hello"]) == [b"hello"]


@pytest.mark.parametrize("error", [errno.EBADF, errno.EHOSTUNREACH, errno.ENOMEM])
def test_a_socket_that_never_receives_again_is_an_error_in_the_end(pair: Pair, error: int) -> None:
    told = Told(pair.there.socket, error, 1 << 30)
    pair.there.socket = told  # type: ignore[assignment]

    def receive_on() -> None:
        for _ in range(1000):
            before = told.left
            assert pair.there.receive() == []
            assert before - told.left <= links.TRIES  # no call spins

    with pytest.raises(OSError, match="as told"):
        receive_on()


@pytest.mark.parametrize("error", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_a_tcp_connection_that_broke_off_has_ended(error: int) -> None:
    class Broken(socket.socket):
        def recv(self, *_: Any) -> bytes:
            raise OSError(error, "as the system says")

    near, far = socket.socketpair()
    with far:
        link = TcpLink(Broken(fileno=near.detach()))
        assert link.receive() is None
        link.close()


def test_two_ports_that_there_are_no_descriptors_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[UdpLink] = []

    class Last(UdpLink):
        def __init__(self, host: str, port: int = 0) -> None:
            if port:
                raise OSError(errno.EMFILE, "too many open files")
            super().__init__(host, port)
            made.append(self)

    monkeypatch.setattr(links, "UdpLink", Last)
    with pytest.raises(OSError, match="too many open files"):
        udp_pair("127.0.0.1")
    assert all(link.socket.fileno() == -1 for link in made)


class Full:
    """A socket that takes `room` datagrams and then has no room."""

    def __init__(self, room: int) -> None:
        self.room = room

    def sendto(self, data: bytes, to: object) -> int:
        if self.room == 0:
            raise BlockingIOError
        self.room -= 1
        return len(data)


def test_what_the_system_has_no_room_for_is_not_counted_as_sent() -> None:
    link = UdpLink("127.0.0.1")
    real, link.can_segment = link.socket, False
    link.socket = Full(3)  # type: ignore[assignment]
    assert link.send([b"a", b"b", b"c", b"d", b"e"], ("127.0.0.1", 9)) == 3
    assert link.send([b"f"], ("127.0.0.1", 9)) == 0
    link.socket = real
    link.close()


def test_datagrams_that_the_socket_had_no_room_for_are_counted() -> None:
    pair = Pair()
    pair.there.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sent = 0
    for number in range(200):
        sent += pair.here.send([packet(number, 1000 + number % 7)], pair.to)
    got = len(pair.there.receive(most=1000))
    assert 0 < got < sent == 200
    assert pair.here.send([b"and one more"], pair.to) == 1
    until(lambda: selectable(pair.there.socket))
    assert pair.there.receive()[-1][0] == b"and one more"
    assert pair.there.dropped() == (200 - got if linux else 0)  # only Linux tells
    assert pair.there.dropped() == 0
    pair.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_rtp_has_an_even_port_and_rtcp_the_next(host: str) -> None:
    pairs = [udp_pair(host) for _ in range(20)]
    ports = [(rtp.port, rtcp.port) for rtp, rtcp in pairs]
    for rtp, rtcp in pairs:
        rtp.close()
        rtcp.close()
    assert all(rtp % 2 == 0 and rtcp == rtp + 1 for rtp, rtcp in ports)
    assert len(set(ports)) == 20


def test_no_two_neighbouring_ports() -> None:
    class Odd(UdpLink):
        @property
        def port(self) -> int:
            return 4001

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "UdpLink", Odd)
        with pytest.raises(OSError, match=r"no two neighbouring UDP ports are free on 127\.0\.0\.1"):
            udp_pair("127.0.0.1")


def test_an_address_that_cannot_be_bound_leaves_no_socket() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - the system's own words
        UdpLink("192.0.2.1")  # RFC 5737: nobody's


def test_tcp_keeps_what_the_peer_does_not_take(tcp: tuple[TcpLink, socket.socket]) -> None:
    link, far = tcp
    data = bytes(range(256)) * 8192  # 2 MB
    link.send(data, 1)
    assert 0 < link.waiting < len(data)
    assert link.progress_ns == 1
    link.send(b"the end", 2)
    assert link.progress_ns == 1  # nothing has left since

    got = bytearray()
    now_ns = 10
    while len(got) < len(data) + 7:
        got += far.recv(65_536)
        link.flush(now_ns)
        now_ns += 1
    assert bytes(got) == data + b"the end"
    assert link.waiting == 0
    assert getattr(link, "progress_ns", 0) is None


def test_progress_is_when_bytes_last_left(tcp: tuple[TcpLink, socket.socket]) -> None:
    link, far = tcp
    link.send(bytes(1 << 20), 1)
    link.flush(2)
    assert link.progress_ns in (1, 2)  # the system may have moved on between the two
    before = link.waiting

    def left() -> bool:
        far.recv(65_536)
        link.flush(3)
        return link.waiting < before

    until(left)
    assert link.progress_ns == 3


def test_a_tcp_link_watches_for_writing_only_while_something_waits(tcp: tuple[TcpLink, socket.socket]) -> None:
    link, _ = tcp
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ, "data")
        interest(selector, link)
        assert selector.get_key(link).events == selectors.EVENT_READ
        link.send(bytes(1 << 20), 1)
        interest(selector, link)
        assert selector.get_key(link).events == selectors.EVENT_READ | selectors.EVENT_WRITE
        assert selector.get_key(link).data == "data"


def test_the_end_of_a_tcp_connection(tcp: tuple[TcpLink, socket.socket]) -> None:
    link, far = tcp
    assert link.receive() == b""
    far.sendall(b"last words")
    far.close()
    until(lambda: selectable(link.socket))
    assert link.receive() == b"last words"
    until(lambda: selectable(link.socket))
    assert link.receive() is None


def test_sending_to_a_peer_that_is_gone_is_an_os_error(tcp: tuple[TcpLink, socket.socket]) -> None:
    link, far = tcp
    far.close()

    def fails() -> bool:
        try:
            link.send(b"anybody there?", 1)
        except OSError:
            return True
        return False

    until(fails)


def test_closing_does_not_cut_off_the_last_bytes(tcp: tuple[TcpLink, socket.socket]) -> None:
    """A socket closed over unread bytes resets the connection; what was sent before must arrive all the same."""
    link, far = tcp
    far.sendall(b"a report that nobody reads")
    until(lambda: selectable(link.socket))
    link.send(b"goodbye", 1)
    link.close()
    assert far.recv(100) == b"goodbye"
    assert far.recv(100) == b""


def test_a_waker_may_be_closed_while_others_wake() -> None:
    """What has its number next is not written to."""
    for _ in range(30):
        waker, ended = Waker(), threading.Event()

        def wake(waker: Waker = waker, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                waker.wake()
                waker.clear()

        threads = [threading.Thread(target=wake) for _ in range(3)]
        for thread in threads:
            thread.start()
        waker.close()
        ends = socket.socketpair()
        with ends[0], ends[1]:
            ended.set()
            for thread in threads:
                thread.join(60)
            for end in ends:
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(10)
        waker.wake()
        waker.close()
        assert waker.fileno() == -1


def test_listening_where_one_cannot() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"port {port} on 127\.0\.0\.1 is in use: stop what listens there") as caught:
            listen("127.0.0.1", port)
        assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"192\.0\.2\.1 is not an address of this machine: try 127\.0\.0\.1"):
        listen("192.0.2.1", 0)
    listen("127.0.0.1", port).close()  # free again at once, TIME_WAIT or not


@pytest.mark.parametrize("system", ["linux", "win32", "darwin"])
def test_a_waker_ends_a_wait_from_anywhere(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    if sys.platform == "linux":
        monkeypatch.setattr(links.sys, "platform", system)
    waker = Waker()
    with selectors.DefaultSelector() as selector:
        selector.register(waker, selectors.EVENT_READ)
        assert selector.select(0) == []
        for _ in range(100_000):  # more than its socket holds
            waker.wake()
        assert selector.select(0)
        waker.clear()
        assert selector.select(0) == []
        waker.wake()
        assert selector.select(0)
    waker.close()
    waker.wake()
    waker.clear()


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_datagrams_go_their_way_without_what_linux_alone_has(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(links.sys, "platform", system)
    pair = Pair()
    try:
        packets = [bytes([number]) * 1_000 for number in range(40)]
        assert pair.carry(packets) == packets
    finally:
        pair.close()


def test_a_refusal_of_something_sent_earlier_hides_no_datagram(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    # What Windows reports of a peer that is gone, WinError 10054, and what Linux does of a connected socket.
    receive, refused = socket.socket.recvfrom, iter([ConnectionResetError(10054, "forcibly closed")])
    pair.there.gathers = False

    def once_refused(self: socket.socket, *rest: Any) -> Any:
        for error in refused:
            raise error
        return receive(self, *rest)

    monkeypatch.setattr(socket.socket, "recvfrom", once_refused)
    assert pair.carry([b"after it"]) == [b"after it"]
    assert next(refused, None) is None


def test_a_link_local_address_keeps_its_scope() -> None:
    """Sockets have it as a number beside the address, texts behind it."""
    assert links.sockaddr(("fe80::1%1", 5)) == ("fe80::1", 5, 0, 1)
    assert links.sockaddr(("::1", 5)) == ("::1", 5)
    assert links.sockaddr(("127.0.0.1", 5)) == ("127.0.0.1", 5)
    assert links.host_of(("fe80::1", 5, 0, 1)) == "fe80::1%1"
    assert links.host_of(("fe80::1%eth0", 5, 0, 1)) == "fe80::1%eth0"
    assert links.host_of(("::1", 5, 0, 0)) == "::1"
    assert links.host_of(("127.0.0.1", 5)) == "127.0.0.1"
