"""A class's code and a file of users: what a server lets people join by, drawn and read."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from pathlib import Path

from avlab.wire.admission import Admission
from avlab.wire.digest import MD5, SHA256

CLASS_USER = "class"
"""Who joins by a code; the code is the password."""

CODE_LETTERS = "BCDFGHJKMNPRSTWXYZ"
"""No vowels, so that no code is a word; and no letters that look like others, or like figures: I, L, O, Q, U, V."""

CODE_LENGTH = 6

MOST_BYTES = 1 << 20
"""Of a file of users."""


def new_code() -> str:
    """A code that nobody guesses."""
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))


def read_code(text: str) -> str:
    """A code as somebody types it: blanks, hyphens and small letters are all the same. TypeError, ValueError."""
    if not isinstance(text, str):
        raise TypeError("class_code must be the code in quotation marks, as the server's class_code says it")
    code = re.sub(r"[\s-]", "", text).upper()
    if not re.fullmatch(f"[A-Z]{{{CODE_LENGTH}}}", code):
        raise ValueError(
            f"a class code has {CODE_LENGTH} letters, as the server's class_code and 'avlab serve --class' say it"
        )
    return code


def let_class_in(admission: Admission, code: str) -> None:
    """Let in who knows the code, also in small letters."""
    admission.let_in(CLASS_USER, code, code.lower())


def admission_of(users: str | os.PathLike[str] | None) -> Admission:
    """Who may join by a file of users; nobody yet without one. Raises what `read_users` does."""
    if users is None:
        return Admission({}, draw=secrets.token_bytes)
    realm, known = read_users(users)
    return Admission(known, realm=realm, draw=secrets.token_bytes)


def read_users(file: str | os.PathLike[str]) -> tuple[str, dict[str, dict[str, str]]]:
    """The realm and the users of a file of htdigest lines, `user:realm:HASH`: MD5, or SHA-256 where it has 64 digits.

    Empty lines and those that begin with # are passed over. PermissionError unless the file is its owner's alone (but
    on Windows, which has no such bits), FileNotFoundError, or ValueError for a file that is none of users.
    """
    path = Path(file)
    data = _read_private(path)
    users: dict[str, dict[str, str]] = {}
    realms: set[str] = set()
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, rest = line.strip().partition(":")
        realm, _, secret = rest.rpartition(":")
        if not user or not realm or not re.fullmatch(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{64}", secret):
            raise ValueError(
                f"line {number} of {path} is not of the form user:realm:HASH: make the file with 'htdigest -c {path} "
                "REALM USER'"
            )
        realms.add(realm)
        users.setdefault(user, {})[MD5 if len(secret) == 32 else SHA256] = secret.lower()
    if not users:
        raise ValueError(f"{path} names no user: make it with 'htdigest -c {path} REALM USER'")
    if len(realms) > 1:
        raise ValueError(f"{path} has lines of {len(realms)} realms, and a server has one: keep those of one realm")
    return realms.pop(), users


def _read_private(path: Path) -> bytes:
    """A file's bytes, if nobody else can read them."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file of users at {path}: make it with 'htdigest -c {path} REALM USER'"
        ) from None
    except OSError as error:
        raise type(error)(f"the file of users {path} cannot be read: {error.strerror or error}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is no file of users: name a file of htdigest lines")
        if sys.platform != "win32" and mode & 0o077:
            raise PermissionError(
                f"the file of users {path} is open to others (mode {stat.S_IMODE(mode):03o}), and it is a secret: make "
                f"it yours alone with 'chmod 600 {path}'"
            )
        with open(descriptor, "rb", closefd=False) as opened:
            data = opened.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES:,} bytes: it is no file of users")
    return data
