"""From captured packets down to what UDP and TCP carry: Ethernet and other links, VLANs, IPv4, IPv6. Pure, by arrays.

What is cut short, a later fragment, or of another protocol is left out. Nothing a header says is believed beyond the
bytes that are there.
"""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avlab.measure.captures.blocks import PADDING, Bytes, Ints, Records, column, heads

Flags = NDArray[np.bool_]
Keys = NDArray[np.uint64]

NULL, ETHERNET, RAW, LOOP, SLL, IPV4, IPV6, SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
READ = (NULL, ETHERNET, 12, 14, RAW, LOOP, SLL, IPV4, IPV6, SLL2)
"""The links that are read; 12 and 14 are raw IP on some BSDs."""

UDP, TCP = 17, 6
_VLANS = (0x8100, 0x88A8, 0x9100)
_EXTENSIONS = (0, 43, 60, 135)  # of IPv6: hop-by-hop, routing, destination, mobility (RFC 8200 4)
_FRAGMENT = 44


class AddressPair(NamedTuple):
    """From where to where."""

    source: str
    source_port: int
    target: str
    target_port: int
    protocol: int

    @property
    def words(self) -> str:
        """For a table."""
        source, target = (f"[{host}]" if ":" in host else host for host in (self.source, self.target))
        return f"{source}:{self.source_port} > {target}:{self.target_port}"


class CarriedPackets(NamedTuple):
    """What UDP and TCP carried: a row a packet, in order of the capture."""

    data: Bytes
    time_ns: Ints
    protocol: Ints
    at: Ints
    """Where the payload begins in `data`."""
    have: Ints
    """How many of its bytes were captured."""
    size: Ints
    """How many it had."""
    flow: Keys
    """A number for its addresses and ports."""
    back: Keys
    """The number of the flow the other way."""
    sequence: Ints
    """TCP's."""
    ends: Ints
    """Shape (packets, 6): both addresses as two numbers of 64 bits each, and the ports."""

    def flow_of(self, row: int) -> AddressPair:
        """The addresses and ports of a row."""
        words = [int(word) & (1 << 64) - 1 for word in self.ends[row]]
        return AddressPair(
            _host(words[0], words[1]), words[4], _host(words[2], words[3]), words[5], int(self.protocol[row])
        )


def carried(records: Records) -> CarriedPackets:
    """The UDP datagrams and TCP segments among packets."""
    data = records.data
    most = len(data) - PADDING

    def u8(at: Ints) -> Ints:
        return data[np.minimum(at, most)].astype(np.int64)

    def u16(at: Ints) -> Ints:
        return u8(at) << 8 | u8(at + 1)

    begin, end, link = records.at, records.at + records.captured, records.link
    at, good = begin.copy(), np.isin(link, READ)
    for kind, place, header in ((ETHERNET, 12, 14), (SLL, 14, 16), (SLL2, 0, 20)):
        mine = np.flatnonzero(link == kind)
        if not len(mine):
            continue
        types, ip = u16(begin[mine] + place), begin[mine] + header
        for _ in range(3):
            tagged = np.isin(types, _VLANS)
            if not tagged.any():
                break
            types = np.where(tagged, u16(ip + 2), types)
            ip = np.where(tagged, ip + 4, ip)
        session = types == 0x8864  # PPPoE (RFC 2516), PPP's numbers for IPv4 and IPv6
        types = np.where(session & np.isin(u16(ip + 6), (0x21, 0x57)), 0x0800, types)
        at[mine] = np.where(session, ip + 8, ip)
        good[mine] &= np.isin(types, (0x0800, 0x86DD))
    at[np.isin(link, (NULL, LOOP))] += 4

    head = heads(data, np.minimum(at, most), 40)
    version = head[:, 0] >> 4
    four, six = good & (version == 4) & (at + 20 <= end), good & (version == 6) & (at + 40 <= end)
    words = head[:, 0] & 15
    protocol = np.where(four, head[:, 9], head[:, 6]).astype(np.int64)
    inner = at + np.where(four, 4 * words.astype(np.int64), 40)
    total = np.where(four, column(head, 2, ">u2"), 40 + column(head, 4, ">u2"))
    total = np.where(total <= np.where(four, 0, 40), records.size - (at - begin), total)  # 0: the card does it later
    ended = at + total
    stop = np.minimum(end, ended)  # behind it is a link's own padding
    good = (four & (words >= 5) & (column(head, 6, ">u2") & 0x1FFF == 0)) | six
    for _ in range(6):
        more = six & np.isin(protocol, (*_EXTENSIONS, _FRAGMENT)) & (inner + 8 <= stop)
        if not more.any():
            break
        fragment = more & (protocol == _FRAGMENT)
        good &= ~(fragment & (u16(inner + 2) & 0xFFF8 != 0))
        length = np.where(fragment, 8, 8 + 8 * u8(inner + 1))
        protocol = np.where(more, u8(inner), protocol)
        inner = np.where(more, inner + length, inner)
    udp, tcp = good & (protocol == UDP) & (inner + 8 <= stop), good & (protocol == TCP) & (inner + 20 <= stop)
    segment = heads(data, np.minimum(inner, most), 20)
    offset = np.where(udp, 8, (segment[:, 12] >> 4).astype(np.int64) * 4)
    kept = np.flatnonzero((udp | (tcp & (offset >= 20))) & (inner + offset <= stop))
    inner, offset, stop, ended, four, protocol = (each[kept] for each in (inner, offset, stop, ended, four, protocol))
    head, segment = head[kept], segment[kept]
    size = ended - inner - offset
    # A first fragment has less of a datagram than its header says.
    size = np.where(protocol == UDP, np.maximum(column(segment, 4, ">u2") - 8, 0), size)
    ends = np.zeros((len(kept), 6), np.int64)
    mapped = 0xFFFF << 32
    for place, (of_four, high) in enumerate(((12, 8), (16, 24))):
        ends[:, 2 * place] = np.where(four, 0, column(head, high, ">i8"))
        ends[:, 2 * place + 1] = np.where(four, mapped | column(head, of_four, ">u4"), column(head, high + 8, ">i8"))
        ends[:, 4 + place] = column(segment, 2 * place, ">u2")
    return CarriedPackets(
        data,
        records.time_ns[kept],
        protocol,
        inner + offset,
        np.minimum(stop - inner - offset, size),
        np.maximum(size, 0),
        _mixed(ends[:, 0], ends[:, 1], ends[:, 2], ends[:, 3], ends[:, 4] << 16 | ends[:, 5], protocol),
        _mixed(ends[:, 2], ends[:, 3], ends[:, 0], ends[:, 1], ends[:, 5] << 16 | ends[:, 4], protocol),
        column(segment, 4, ">u4"),
        ends,
    )


def _mixed(*columns: Ints) -> Keys:
    """One number for each row of several: 64 bits, so that no two of millions are alike by chance."""
    mixed: Any = np.full(len(columns[0]), 0x9E3779B97F4A7C15, np.uint64)
    for values in columns:
        mixed = (mixed ^ values.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
    return np.asarray(mixed, np.uint64)


def keyed(flow: Keys, number: Ints) -> Keys:
    """One number for a flow and another number."""
    return _mixed(flow.astype(np.int64), number)


def _host(high: int, low: int) -> str:
    if not high and low >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(low & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(high << 64 | low))
