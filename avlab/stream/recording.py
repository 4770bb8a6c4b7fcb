"""The record as a subscriber: what the machines tell, as rows of a trace."""

from __future__ import annotations

import numpy as np

from avlab.core.events import Reported, Sent
from avlab.measure.record.trace import Recorder
from avlab.wire.rtp import HEADER_BYTES

_HEADERS = np.dtype([("first", "u1"), ("second", "u1"), ("sequence", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4")])
"""`rtp.HEADER`, for a batch at once."""


class SenderRecording:
    """Writes down what leaves a server, once its driver knows whether it did, and what comes back; on its thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def sent(self, event: Sent) -> None:
        """A row for each packet of a batch."""
        (data, size), count, last = event.batch, event.batch.total, event.batch.last
        if not count:
            return
        # Each packet of a batch has its header `size` after the one before; the last one has a whole header, too.
        headers = np.ndarray((count,), _HEADERS, data, strides=(max(size, HEADER_BYTES),))
        self._recorder.packet_batch(
            count,
            stream=event.stream,
            ssrc=event.ssrc,
            seq=np.arange(event.number, event.number + count),
            timestamp=headers["timestamp"],
            marker=headers["second"] >> 7,
            size=size if last == size else [size] * (count - 1) + [last],
            sent_ns=event.time_ns,
            fate=event.fate,
        )

    def reported(self, event: Reported) -> None:
        """A row for a receiver report."""
        self._recorder.report(
            event.time_ns,
            event.stream,
            event.ssrc,
            loss=event.loss,
            lost=event.lost,
            jitter_ns=event.jitter_ns,
            round_trip_ns=event.round_trip_ns,
            kbps=event.kbps,
        )
