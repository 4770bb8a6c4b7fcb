"""What a sender was told and what it made of it: receiver reports beside the truth, rate, queue and what was chosen.

Pure: a trace in, DataFrames out, empty where the trace does not say. Times are float seconds on the run's clock, rates
kbit/s, losses fractions from 0 to 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from avlab.measure.numbers import rates
from avlab.measure.numbers.folds import as_table
from avlab.measure.numbers.loss import loss_between
from avlab.measure.numbers.network import delays
from avlab.measure.record.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

REPORT = ("time", "stream", "ssrc", "fraction_lost", "cumulative_lost", "jitter_ms", "round_trip_ms")
_RATE = re.compile(r"\brate ([\d.e+]+) kbit/s")


def reports(trace: Trace) -> pd.DataFrame:
    """What clients told the server in RTCP receiver reports (RFC 3550, 6.4): a row a report, columns as in `REPORT`.

    `fraction_lost` is since the report before, in steps of 1/256; `cumulative_lost` counts packets since the beginning,
    less duplicates; `jitter_ms` is that of A.8. `Trace.reports` in milliseconds: in a server's record, and in one
    joined with it, which has the reports of that client alone.

    Args:
        trace: A run's record: a server's, a client's, or both joined.
    """
    table = trace.reports.assign(
        fraction_lost=lambda told: told["loss"],
        cumulative_lost=lambda told: told["lost"].to_numpy(np.float64, na_value=np.nan),
        jitter_ms=lambda told: told["jitter"] * 1e3,
        round_trip_ms=lambda told: told["round_trip"] * 1e3,
    )
    return table[list(REPORT)]


def true_loss(
    trace: Trace, times: np.ndarray[tuple[int, ...], np.dtype[np.float64]], stream: str = "video"
) -> pd.DataFrame:
    """The fraction of a stream's packets that were lost between one of `times` and the next, as receivers see it.

    A packet counts when it came; a lost one when the next one sent after it came, which is how it is missed. Columns
    time (the later of the two), loss. The first counts from the beginning; what is under way does not count.
    """
    import pandas as pd

    return pd.DataFrame({"time": times, "loss": loss_between(trace, times, stream)})


def sent_rate(trace: Trace, bin: float = 0.5) -> pd.DataFrame:
    """Kilobits of packets a second, each `bin` seconds: columns time (where it starts), video, audio.

    By when packets were sent, or came where that is not known; what repairs send counts. ValueError for a bin of 0.
    """
    return as_table(rates.sent_rate(trace, bin), "time", "video", "audio")


def queueing(trace: Trace, bin: float = 0.25) -> pd.DataFrame:
    """How long packets of video waited, in the mean of each `bin` seconds: columns time (its middle), queue_ms.

    What they took beyond the quickest of the run: the bottleneck's queue, and jitter.
    """
    import pandas as pd

    table = delays(trace).table
    table = table[table["stream"] == "video"]
    waited = table["delay_ms"] - table["delay_ms"].min()
    means = waited.groupby(np.floor(table["time"] / bin).astype(int)).mean()
    return pd.DataFrame({"time": (np.asarray(means.index, np.float64) + 0.5) * bin, "queue_ms": means.to_numpy()})


def steps(trace: Trace, name: str) -> pd.DataFrame:
    """A setting's values over time: columns time, value; floats, NaN for None, of what is a number."""
    import pandas as pd

    rows = trace.settings
    rows = rows[(rows["name"] == name) & (rows["kind"] == "setting")]
    rows = rows[rows["value"].map(lambda value: value is None or isinstance(value, int | float)).astype(bool)]
    return pd.DataFrame({"time": rows["time"], "value": rows["value"].astype(np.float64)}).reset_index(drop=True)


def bottleneck(trace: Trace) -> pd.DataFrame:
    """The network's rate as it was set: columns time, kbps; NaN while there is no bottleneck."""
    import pandas as pd

    rows = trace.settings
    rows = rows[(rows["name"] == "network") & (rows["kind"] == "setting")]
    found = [_RATE.search(str(value)) for value in rows["value"]]
    rates = [float(match[1]) if match else np.nan for match in found]
    return pd.DataFrame({"time": rows["time"].to_numpy(), "kbps": np.array(rates, np.float64)})
