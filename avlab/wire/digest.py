"""Digest, and the reading of Basic: challenges and credentials in headers, and what answers them. RFC 7616, RFC 2617.

Pure: what is drawn by chance is handed in. Who may join a server is decided in `admission`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, unquote

MD5, SHA256 = "MD5", "SHA-256"

HASHES = MappingProxyType({MD5: "md5", SHA256: "sha256"})
"""The algorithms that are known, by their names in headers; each also as `-sess` (RFC 7616 3.4.2)."""

MOST_PARAMETERS = 64
"""Of one header; what follows is not read."""

MOST_TRIES = 3
"""How often one request is sent: as it is, with credentials, and once more where the nonce was stale."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One challenge, or one set of credentials: a scheme's name, and its parameters by lower-case name."""

    name: str
    """In lower case."""
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str = field(default="", repr=False)
    """What stands in the place of parameters, as Basic's credentials do (RFC 7235 2.1)."""

    def get(self, name: str) -> str:
        """A parameter's value; empty where there is none."""
        return self.parameters.get(name, "")


_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_NAME})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"?|([^\s,"]*))', re.DOTALL)
_SCHEME = re.compile(rf"({_NAME})(?=[\s,]|\Z)")
_TOKEN = re.compile(r"[ \t]+([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|\Z)")
_SKIPPED = re.compile(r'(?:[\s,]|"(?:[^"\\]|\\.)*"?)+|[^\s,"]+', re.DOTALL)


def parse_schemes(value: str) -> list[Scheme]:
    """The schemes of a header's value, in order, whatever stands between them: several challenges in one value, as a
    header that comes twice is joined by commas (RFC 7235 4.1). What is neither a scheme nor a parameter is passed over.
    """
    found: list[tuple[str, dict[str, str], str]] = []
    at = count = 0
    while at < len(value) and count < MOST_PARAMETERS:
        if (match := _PARAMETER.match(value, at)) is not None:
            if found:  # of a parameter that is given twice the first counts
                text = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
                found[-1][1].setdefault(match[1].lower(), text)
            count += 1
        elif (match := _SCHEME.match(value, at)) is not None:
            token = _TOKEN.match(value, match.end())
            found.append((match[1].lower(), {}, "" if token is None else token[1]))
            match = match if token is None else token
            count += 1
        elif (match := _SKIPPED.match(value, at)) is None:
            break
        at = match.end()
    return [Scheme(name, parameters, token) for name, parameters, token in found]


def quoted(text: str) -> str:
    """A quoted string (RFC 7230 3.2.6); what would break the header's line is left out."""
    return '"' + re.sub(r'(["\\])', r"\\\1", re.sub(r"[\x00-\x1f\x7f]", "", text)) + '"'


# ---- the arithmetic


def _hashed(algorithm: str, *parts: str | bytes) -> str:
    data = b":".join(part if isinstance(part, bytes) else part.encode("utf-8", "replace") for part in parts)
    return hashlib.new(HASHES[algorithm], data, usedforsecurity=False).hexdigest()


def secret_of(user: str, realm: str, password: str, algorithm: str = MD5) -> str:
    """H(A1) (RFC 7616 3.4.2), which stands for the password: what a line of htdigest keeps. Hexadecimal."""
    return _hashed(algorithm, user, realm, password)


def response_of(
    secret: str,
    *,
    algorithm: str = MD5,
    nonce: str,
    method: str,
    uri: str,
    qop: str = "",
    nc: str = "",
    cnonce: str = "",
    body: bytes = b"",
    session: bool = False,
) -> str:
    """The response (RFC 7616 3.4.1); without `qop` as RFC 2617 3.2.2.1 has it for clients of RFC 2069.

    `secret` is what `secret_of` gives, `session` whether the algorithm is its `-sess` form.
    """
    if session:
        secret = _hashed(algorithm, secret, nonce, cnonce)
    asked = [method, uri] + ([_hashed(algorithm, body)] if qop == "auth-int" else [])
    told = [nonce, nc, cnonce, qop] if qop else [nonce]
    return _hashed(algorithm, secret, *told, _hashed(algorithm, *asked))


# ---- a server's challenge and what is read of the answer


def challenge(realm: str, nonce: str, *, algorithm: str = MD5, stale: bool = False) -> str:
    """The value of a WWW-Authenticate header (RFC 7616 3.3), in the order in which old clients look for its parts."""
    told = f"Digest realm={quoted(realm)}, nonce={quoted(nonce)}"
    return f'{told}{", stale=true" if stale else ""}, algorithm={algorithm}, qop="auth", charset=UTF-8'


def user_of(credentials: Scheme) -> str:
    """The user whom credentials of Digest name, in `username` or `username*` (RFC 7616 3.4, RFC 8187)."""
    extended = credentials.get("username*")
    if extended and "username" not in credentials.parameters:
        charset, _, rest = extended.partition("'")
        if charset.lower() == "utf-8":
            return unquote(rest.partition("'")[2], errors="replace")
    return credentials.get("username")


# ---- a client's answer


class Credentials:
    """A user and a password as a client has them, and the challenge that it answers from now on.

    Not shown by `repr`. `allow_basic` is whether the password may be sent as it is, where nothing else is asked for.
    """

    def __init__(self, user: str, password: str, *, allow_basic: bool = False) -> None:
        self._user, self._password, self._allow_basic = user, password, allow_basic
        self._challenge: Scheme | None = None
        self._count = 0
        self.refusal = ""
        """Why the newest challenge is not answered: `basic`, what it asks for that is not known, or nothing."""

    def again(self) -> Credentials:
        """The same user and password, for another connection: no challenge is known yet."""
        return Credentials(self._user, self._password, allow_basic=self._allow_basic)

    def take(self, value: str, *, answered: bool) -> bool:
        """Take the challenges of a 401; whether it is worth while to ask again.

        It is unless the refused request had `answered` a challenge just come, and the nonce was not stale.
        """
        before, chosen = self._challenge, self._chosen(parse_schemes(value))
        self._challenge, self._count = chosen, 0
        if chosen is None:
            return False
        stale = chosen.get("stale").lower() == "true"
        renewed = before is None or before.get("nonce") != chosen.get("nonce")
        return (stale and renewed) or not answered

    def _chosen(self, offered: Iterable[Scheme]) -> Scheme | None:
        """The strongest of the challenges that are understood, the first of equals; None, with `refusal`, for none."""
        digests = [each for each in offered if each.name == "digest"]
        known = [each for each in digests if _algorithm_of(each)[0] in HASHES and _qop_of(each) is not None]
        self.refusal = ""
        if known:
            return max(known, key=lambda each: list(HASHES).index(_algorithm_of(each)[0]))
        basic = next((each for each in offered if each.name == "basic"), None)
        if basic is None:
            names = [f"Digest with {each.get('algorithm') or 'MD5'}" for each in digests]
            self.refusal = ", ".join(names or [each.name for each in offered]) or "nothing"
        elif not self._allow_basic:
            self.refusal = "basic"
        return basic if basic is not None and self._allow_basic else None

    def header(self, method: str, uri: str, body: bytes = b"", *, cnonce: str) -> str | None:
        """The value of the request's Authorization header; None before there is a challenge to answer.

        `uri` is what stands in the request's first line, and `cnonce` is drawn anew for each request.
        """
        asked = self._challenge
        if asked is None:
            return None
        if asked.name == "basic":
            given = base64.b64encode(f"{self._user}:{self._password}".encode()).decode("ascii")
            return f"Basic {given}"
        algorithm, session = _algorithm_of(asked)
        qop, realm, nonce = _qop_of(asked) or "", asked.get("realm"), asked.get("nonce")
        self._count += 1
        nc = f"{self._count:08x}"
        response = response_of(
            secret_of(self._user, realm, self._password, algorithm),
            algorithm=algorithm, nonce=nonce, method=method, uri=uri,
            qop=qop, nc=nc, cnonce=cnonce, body=body, session=session,
        )  # fmt: skip
        parts = [self._said_user(asked)]
        parts += [f"{name}={quoted(text)}" for name, text in (("realm", realm), ("nonce", nonce), ("uri", uri))]
        parts.append(f'response="{response}"')
        if "algorithm" in asked.parameters:  # as it was asked for: some compare it to the letter
            parts.append(f"algorithm={asked.get('algorithm')}")
        if "opaque" in asked.parameters:
            parts.append(f"opaque={quoted(asked.get('opaque'))}")
        if qop:
            parts.append(f"qop={qop}, nc={nc}")
        if qop or session:
            parts.append(f"cnonce={quoted(cnonce)}")
        return f"Digest {', '.join(parts)}"

    def _said_user(self, asked: Scheme) -> str:
        if self._user.isascii() or asked.get("charset").upper() != "UTF-8":
            return f"username={quoted(self._user)}"
        return f"username*=UTF-8''{quote(self._user, safe='')}"


def _algorithm_of(asked: Scheme) -> tuple[str, bool]:
    """The algorithm's name in upper case, and whether it is of the `-sess` form. MD5 where none is named."""
    name = asked.get("algorithm").strip().upper() or MD5
    return name.removesuffix("-SESS"), name.endswith("-SESS")


def _qop_of(asked: Scheme) -> str | None:
    """What to answer with: `auth`, `auth-int`, nothing for challenges without a qop; None for one that is not known."""
    offered = [each.strip().lower() for each in asked.get("qop").split(",") if each.strip()]
    if not offered:
        return ""
    return next((each for each in ("auth", "auth-int") if each in offered), None)
