"""What a client's address says: the credentials for it, and whether it is an address at all. Opens nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from avlab.stream.joining import CLASS_USER, read_code
from avlab.wire.digest import Credentials
from avlab.wire.urls import login_of, redacted

_CLIPS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".wav",
    ".mp3",
    ".m4a",
    ".ogg",
    ".flac",
)


_PLAYED = ("rtsp://", "http://", "https://", "classic:")  # of the last, its own sentence says how it is written


def credentials_for(url: Any, class_code: str | None, *, allow_basic: bool) -> Credentials | None:
    """What to answer a server's challenges with: a class's code, or what the address has; None without either."""
    login = login_of(url) if isinstance(url, str) else None
    if class_code is not None:
        code = read_code(class_code)
        if login is not None and login != (CLASS_USER, code):
            raise ValueError("the address has a user name already: leave it out, or class_code")
        login = CLASS_USER, code
    return None if login is None else Credentials(*login, allow_basic=allow_basic)


def refuse_file(url: Any) -> None:
    """ValueError, saying what to do, for a file where an address is meant."""
    if not isinstance(url, str | os.PathLike):
        return
    name = os.fspath(url)
    if isinstance(url, os.PathLike) or ("://" not in url and (url.lower().endswith(_CLIPS) or Path(url).is_file())):
        raise ValueError(
            f"{name!r} is a file, and a client plays an address: serve it, with avlab.Server({name!r}) or 'avlab "
            "serve', and play the server's url"
        )


def refuse_other(url: Any) -> None:
    """ValueError, naming what is played, for an address of another kind."""
    if isinstance(url, str) and not url.strip().lower().startswith(_PLAYED):
        raise ValueError(
            f"{redacted(url)!r} is no address to play: write it as rtsp://host:port/path, http://host:port/path for a "
            "camera that sends JPEG, or the name of a session description (session.sdp)"
        )
