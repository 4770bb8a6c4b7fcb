"""Traces on a disk: one ZIP, whatever its suffix, with a Parquet file a table and settings.json.

The tables are as a student sees them (float seconds on the run's clock): whatever reads Parquet reads them.
A file is a stranger's until checked: sizes are bounded, and whatever is wrong with it is a ValueError with a sentence.
"""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from avlab.measure.tables import TABLES
from avlab.measure.trace import SettingRow, Trace

FORMAT = "avlab trace"
VERSION = 1
MAX_MEMBER_BYTES = 1 << 30
MAX_ROWS = 50_000_000  # a day of packets at 600 a second; a table of them fits in memory
_SETTINGS = "settings.json"
_NS = 1_000_000_000


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Save a trace whole: at no moment is there half a file at `path`, and what was there before stays until the end.

    FileNotFoundError: the folder does not exist. IsADirectoryError: `path` is a folder. Other OSErrors as they come.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: give the trace a file name in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to save {target.name} in: make it first")
    # Beside the target, because replacing is atomic only within one file system.
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(scratch, "x", zipfile.ZIP_STORED) as archive:
            for name in TABLES:
                archive.writestr(f"{name}.parquet", _parquet(trace, name))
            archive.writestr(_SETTINGS, json.dumps(_described(trace), indent=1, default=str, ensure_ascii=False))
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Trace:
    """Read a trace back, exactly as it was saved.

    FileNotFoundError: nothing is there. ValueError: it is no trace, is cut short or damaged, or claims to be larger
    than a trace may be.
    """
    source = Path(path)
    if source.is_dir():
        raise ValueError(f"{source} is a folder, not a saved trace")
    try:
        with zipfile.ZipFile(source) as archive:
            described = _read_settings(source, _member(source, archive, _SETTINGS))
            tables = {name: _read_table(source, archive, name) for name in TABLES}
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no trace at {source}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{source} is no saved trace, or it was cut short ({error})") from None
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{source} is no saved trace: its ZIP is of a kind that traces never are ({error})") from None
    try:
        # A number that is no time in nanoseconds (infinite, too large) must not pass as one.
        with np.errstate(invalid="raise"):
            meta = described["meta"]
            _, _, epoch_ns = meta["side"], meta["clock"], int(meta["epoch_ns"])
            settings = [
                SettingRow(round(float(row["time"]) * _NS) + epoch_ns, str(row["name"]), row["value"], row["kind"])
                for row in described["settings"]
            ]
            return Trace.from_tables(**tables, settings=settings, meta=meta)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{source} is no trace that this avlab can read: {_reason(error)}") from None


def _parquet(trace: Trace, name: str) -> bytes:
    buffer = io.BytesIO()
    getattr(trace, name).to_parquet(buffer, engine="pyarrow", index=False, compression="zstd")
    return buffer.getvalue()


def _described(trace: Trace) -> dict[str, Any]:
    settings = [
        {"time": (row.time_ns - trace.epoch_ns) / _NS, "name": row.name, "value": row.value, "kind": row.kind}
        for row in trace.setting_rows
    ]
    return {"format": FORMAT, "version": VERSION, "meta": trace.meta, "settings": settings}


def _member(source: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{source} is no saved trace: it has no {name} in it") from None
    if info.file_size > MAX_MEMBER_BYTES:
        raise ValueError(
            f"{name} in {source} claims {info.file_size:,} bytes; a trace has at most {MAX_MEMBER_BYTES:,} in a table"
        )
    # What is read is bounded by what is claimed: zipfile stops there, and checks the sum.
    return archive.read(info)


def _read_settings(source: Path, data: bytes) -> dict[str, Any]:
    try:
        described = json.loads(data)
        known = described["format"] == FORMAT
        version = int(described["version"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{source} is no saved trace: its {_SETTINGS} does not say that it is one") from None
    if not known:
        raise ValueError(f"{source} is no saved trace: its {_SETTINGS} is of another format")
    if version > VERSION:
        raise ValueError(
            f"{source} was saved by a newer avlab (format {version}; this one reads {VERSION}): update avlab"
        )
    return dict(described)


def _read_table(source: Path, archive: zipfile.ZipFile, name: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    data = io.BytesIO(_member(source, archive, f"{name}.parquet"))
    try:
        file = pyarrow.parquet.ParquetFile(data)
        # Run lengths make a billion equal rows a few bytes, so the size of the file says nothing about them.
        if file.metadata.num_rows > MAX_ROWS:
            raise ValueError(f"it claims {file.metadata.num_rows:,} rows, more than {MAX_ROWS:,}")
        missing = [column for column in TABLES[name].columns if column not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        return file.read(columns=list(TABLES[name].columns)).to_pandas()
    except (pyarrow.ArrowException, ValueError, OSError, TypeError) as error:
        raise ValueError(f"the {name} in {source} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines() or [type(error).__name__]
    return f"it lacks {first[0]}" if isinstance(error, KeyError) else first[0]
