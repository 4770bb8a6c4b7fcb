"""A capture file becomes a trace: every RTP packet a row, RTCP's reports, frames by timestamp and marker.

The one file here that opens another. A capture is a stranger's: it is read in parts and in bounded memory, however
large; rows that are many go to a disk, as a run's own do. What makes no sense is passed over and counted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from avlab.measure.captures.blocks import CaptureFile, Records, column, heads
from avlab.measure.captures.control import Control
from avlab.measure.captures.frames import frames_and_sync
from avlab.measure.captures.interleaved import STARTS, Direction
from avlab.measure.captures.layers import READ, TCP, UDP, AddressPair, CarriedPackets, carried, keyed
from avlab.measure.captures.numbers import measured
from avlab.measure.captures.rtpstreams import ITEM, MOST_STREAMS, PayloadKind, Stream
from avlab.measure.numbers.loss import Heard
from avlab.measure.record.scratch import Scratch
from avlab.measure.record.tables import PACKET_FATES, STREAMS, Rows
from avlab.measure.record.trace import Recorder, Trace

MOST_CONNECTIONS = 1_000
"""RTSP connections that are followed."""

_DUPLICATE = PACKET_FATES.index("duplicate")
_STARTS = np.array([int.from_bytes(start, "big") for start in STARTS], np.int64)


def from_pcap(path: str | os.PathLike[str], streams: Iterable[int] | None = None) -> Trace:
    """The trace of a capture file; see `Trace.from_pcap`."""
    source = Path(path)
    reading = CaptureReading(source.name)
    with _opened(source) as file:
        capture = CaptureFile(file, name=str(source))
        for records in capture:
            reading.add(records)
        reading.cut = capture.cut
    return reading.trace(str(source), None if streams is None else list(streams))


@contextmanager
def _opened(source: Path) -> Any:
    try:
        if not stat.S_ISREG(source.stat().st_mode):  # before it is opened: a pipe would wait
            raise ValueError(f"{source} is no file: name a capture")
        file = source.open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no capture at {source}") from None
    with file:
        yield file


class CaptureReading:
    """Takes a capture's packets some at a time, and gives its trace."""

    def __init__(self, name: str) -> None:
        self.name, self.cut = name, False
        self._recorder: Recorder | None = None
        self._heard = Heard()
        self._streams: dict[int, Stream] = {}
        self._names: dict[int, int] = {}  # how many streams have an SSRC
        self._formats: dict[int, PayloadKind] = {}
        self._control = Control()
        self._directions: dict[int, Direction] = {}
        self._packets = self._datagrams = 0
        self._links: set[int] = set()
        self._last_ns = 0

    def add(self, records: Records) -> None:
        """Packets, in order of the file."""
        self._packets += len(records.at)
        self._links.update(np.unique(records.link).tolist())
        if self._recorder is None and len(records.time_ns):
            epoch_ns = int(records.time_ns[0])
            self._recorder = Recorder(side="capture", epoch_ns=epoch_ns, clock=f"capture:{self.name}", spill=Scratch())
        if len(records.time_ns):
            self._last_ns = max(self._last_ns, int(records.time_ns.max()))
        packets = carried(records)
        self._datagrams += len(packets.at)
        rows, items, keys = self._candidates(packets)
        more = self._of_connections(packets)
        if more:
            rows = np.concatenate([rows, [each[0] for each in more]])
            keys = np.concatenate([keys, np.array([each[1] for each in more], np.uint64)])
            items = np.concatenate([items, np.array([each[2] for each in more], ITEM)])
            signalled = {each[1] for each in more}
        else:
            signalled = set()
        self._sort_out(packets, rows, items, keys, signalled)

    def _candidates(self, packets: CarriedPackets) -> tuple[Any, Any, Any]:
        """What may be RTP in datagrams: rows, items and the numbers of their streams. RTCP is taken in."""
        udp = np.flatnonzero((packets.protocol == UDP) & (packets.have >= 8))
        head = heads(packets.data, packets.at[udp], 12)
        second = head[:, 0] >> 6 == 2
        control = second & (head[:, 1] >= 192) & (head[:, 1] <= 223)  # RFC 5761 4
        for row in udp[control].tolist():
            self._hear(packets, row)
        needed = 12 + 4 * (head[:, 0] & 15).astype(np.int64)
        likely = second & ~control & (packets.have[udp] >= 12) & (packets.size[udp] >= needed)
        rows, head = udp[likely], head[likely]
        items = np.zeros(len(rows), ITEM)
        items["time"], items["size"] = packets.time_ns[rows], np.minimum(packets.size[rows], 1 << 30)
        items["type"], items["mark"] = head[:, 1] & 0x7F, head[:, 1] >> 7
        items["seq"], items["timestamp"] = column(head, 2, ">u2"), column(head, 4, ">u4")
        items["ssrc"] = column(head, 8, ">u4")
        return rows, items, keyed(packets.flow[rows], items["ssrc"])

    def _hear(self, packets: CarriedPackets, row: int) -> None:
        at, have = int(packets.at[row]), int(packets.have[row])
        whole = have == int(packets.size[row])
        self._control.hear(
            packets.data[at : at + have].tobytes(), int(packets.time_ns[row]), packets.flow_of(row), whole=whole
        )

    def _of_connections(self, packets: CarriedPackets) -> list[tuple[int, int, Any]]:
        """RTP within RTSP: the rows that complete packets, the numbers of their streams, and the packets."""
        tcp = np.flatnonzero((packets.protocol == TCP) & (packets.have > 0))
        if not len(tcp):
            return []
        words = column(heads(packets.data, packets.at[tcp], 4), 0, ">u4")
        begins = tcp[np.isin(words, _STARTS) & (packets.have[tcp] >= 4)]
        for row in begins.tolist():
            for key in (int(packets.flow[row]), int(packets.back[row])):
                if key not in self._directions and len(self._directions) < 2 * MOST_CONNECTIONS:
                    self._directions[key] = Direction(self._formats)
        if not self._directions:
            return []
        found: list[tuple[int, int, Any]] = []
        known = np.array(list(self._directions), np.uint64)
        for row in tcp[np.isin(packets.flow[tcp], known)].tolist():
            at, have = int(packets.at[row]), int(packets.have[row])
            direction = self._directions[int(packets.flow[row])]
            segment = packets.data[at : at + have].tobytes()
            for time_ns, _, data in direction.feed(int(packets.sequence[row]), segment, int(packets.time_ns[row])):
                if len(data) < 8 or data[0] >> 6 != 2:
                    continue
                if 192 <= data[1] <= 223:
                    self._control.hear(data, time_ns, packets.flow_of(row), whole=True)
                elif len(data) >= 12 + 4 * (data[0] & 15):
                    ssrc = int.from_bytes(data[8:12], "big")
                    key = int(keyed(packets.flow[row : row + 1], np.array([ssrc], np.int64))[0])
                    number, ticks = int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:8], "big")
                    item = (time_ns, ssrc, ticks, len(data), number, data[1] & 0x7F, data[1] >> 7)
                    found.append((row, key, item))
        return found

    def _sort_out(self, packets: CarriedPackets, rows: Any, items: Any, keys: Any, signalled: set[int]) -> None:
        """Give each stream its packets, and write down those of the ones that are believed."""
        if not len(rows):
            return
        order = np.lexsort((rows, keys))
        rows, items, keys = rows[order], items[order], keys[order]
        begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        written: list[Rows] = []
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(rows)], strict=True):
            key = int(keys[begin])
            stream = self._streams.get(key)
            if stream is None:
                self._make_room()
                stream = Stream(packets.flow_of(int(rows[begin])), int(items["ssrc"][begin]), key, key in signalled)
                self._streams[key] = stream
            accepted = stream.offer(items[begin:end], self._formats)
            if accepted is not None and len(accepted):
                written.append(self._named(stream).rows(accepted))
        self._write(written)

    def _make_room(self) -> None:
        """Forget what was not believed, once there is too much of it: the oldest."""
        if len(self._streams) >= MOST_STREAMS:
            doubtful = [key for key, stream in self._streams.items() if not stream.believed]
            for key in (doubtful or list(self._streams))[: MOST_STREAMS // 2]:
                del self._streams[key]

    def _named(self, stream: Stream) -> Stream:
        if stream.code < 0:
            before = self._names.get(stream.ssrc, 0)
            self._names[stream.ssrc] = before + 1
            stream.code = stream.ssrc + (before << 32)
        return stream

    def _write(self, written: list[Rows]) -> None:
        if not written or self._recorder is None:
            return
        rows = np.concatenate(written)
        rows = rows[np.argsort(rows["received"], kind="stable")]
        rows["fate"][~self._heard.add(rows)] = _DUPLICATE
        self._recorder.packet_rows(rows)

    def trace(self, path: str, chosen: list[int] | None = None) -> Trace:
        """What was read. ValueError, with a sentence, when there is no RTP in it, or no stream of a number chosen."""
        rest = [(stream, stream.settle(self._formats)) for stream in self._streams.values()]
        self._write([self._named(stream).rows(items) for stream, items in rest if items is not None and len(items)])
        believed = [stream for stream in self._streams.values() if stream.believed]
        if not believed or self._recorder is None:
            raise ValueError(f"no RTP was found in {path}: {self._what_there_is()}")
        recorder = self._recorder
        gaps = self._heard.gaps()
        found = measured(recorder.trace(), believed, gaps, self._control)
        if wrong := [number for number in chosen or () if not 1 <= number <= len(found)]:
            raise ValueError(f"there is no stream {wrong[0]} in {path}: they are numbered from 1 to {len(found)}")
        main = _main(found, chosen)
        codes = {kind: each["code"] for kind, each in main.items()}
        recorder.meta |= {
            "clip": Path(path).name,
            "wire": "capture",
            "end_ns": self._last_ns,
            "audio_rate": main["audio"]["rate"] if "audio" in main else None,
            "ssrcs": list(codes.values()),
            "repair_ssrcs": [each["code"] for each in found if each["code"] not in codes.values()],
            "clock_rates": {str(each["code"]): each["rate"] for each in found if each["rate"]},
            "streams": found,
            "shown": [each["number"] for each in main.values()],
            "cut": self.cut,
        }
        self._control.write(recorder, found)
        frames_and_sync(recorder, recorder.trace(), main, self._control)
        return recorder.trace()

    def _what_there_is(self) -> str:
        if not self._packets:
            return "it has no packets"
        strange = sorted(link for link in self._links if link not in READ)
        if strange and len(strange) == len(self._links):
            numbers = ", ".join(map(str, strange))
            return f"its packets are of link type {numbers} (tcpdump.org/linktypes.html), which avlab does not read"
        return f"it has {self._packets:,} packets, {self._datagrams:,} of them of UDP or TCP"


def _main(found: list[dict[str, Any]], chosen: list[int] | None) -> dict[str, dict[str, Any]]:
    """The video, and the sound that goes with it: the largest ones, of one way where there is such a pair."""
    offered = [each for each in found if chosen is None or each["number"] in chosen]
    main: dict[str, dict[str, Any]] = {}
    for kind in STREAMS:
        mine = [each for each in offered if each["kind"] == kind]
        if kind == "audio" and "video" in main:
            video = main["video"]
            mine = [each for each in mine if _way(each) == _way(video)] or mine
        if mine:
            main[kind] = max(mine, key=lambda each: (each["rate"] is not None, each["packets"]))
    return main


def _way(stream: dict[str, Any]) -> tuple[str, str]:
    flow: AddressPair = AddressPair(*stream["flow"])
    return flow.source, flow.target
