"""Who may join a server: users and their secrets, nonces and their ages, and how many wrong guesses are heard.

Pure, and of no transport: RTSP and HTTP hand in a method, an address and the Authorization header, and get None, or
with what to refuse. Time is an argument; keys and nonces are drawn by what is handed in. RFC 7616.
"""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from avlab.wire.digest import HASHES, MD5, SHA256, Scheme, challenge, parse_schemes, response_of, secret_of, user_of
from avlab.wire.units import NS
from avlab.wire.urls import track_of

REALM = "avlab"

NONCE_NS = 300 * NS
"""How long a nonce is good for; a client with an older one is given another, and asks nobody for the password again."""

WRONG_GUESSES = 5
MOST_WRONG = 600
"""From one address, and from all, within `GUESSES_NS`: more are not heard. Six letters of 18 are 34 million codes."""

GUESSES_NS = 60 * NS

MOST_COUNTED = 4096
"""Nonces whose counts are known; beyond, the oldest are good no more."""

UNAUTHORIZED, FORBIDDEN, BAD_REQUEST = 401, 403, 400

_OFFERED = (SHA256, MD5)
"""The strongest first (RFC 7616 3.7). MD5 is last, as FFmpeg, GStreamer and live555 take the last that they read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request is to be refused."""

    status: int
    """401, with a header each of `challenges`; 403 when too many guesses were wrong; 400 when it contradicts itself."""
    reason: str = ""
    """In a sentence's words, where the status does not say all."""
    challenges: tuple[str, ...] = ()
    """The values of as many WWW-Authenticate headers: many clients read only one challenge of a line."""
    wrong: bool = False
    """Whether it was a wrong guess."""


class Admission:
    """Lets in who knows a secret, request by request. Shows no secret by `repr`.

    `users` maps a user's name to H(A1) by algorithm, MD5 or SHA-256 in hexadecimal, as `digest.secret_of` makes it of
    `realm`. `draw(n)` gives n bytes that nobody can guess. ValueError when there is no algorithm that all users have.
    """

    def __init__(
        self, users: Mapping[str, Mapping[str, str]], *, realm: str = REALM, draw: Callable[[int], bytes]
    ) -> None:
        self.realm = realm
        self._draw, self._key = draw, draw(32)
        self._users: dict[str, Mapping[str, Collection[str]]] = {
            user: {name: (secret.lower(),) for name, secret in secrets.items()} for user, secrets in users.items()
        }
        self._wrong: deque[tuple[int, str]] = deque(maxlen=MOST_WRONG)  # when, and from where
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()  # by nonce: when it was made, its newest count
        self._oldest_ns = 0  # nonces made up to then whose count is not known are good no more
        self._algorithms: tuple[str, ...] = ()
        self._find_algorithms()

    def let_in(self, user: str, *passwords: str) -> None:
        """Let a user in, instead of who had the name: any of the passwords will do."""
        self._users[user] = {
            name: tuple(secret_of(user, self.realm, password, name) for password in passwords) for name in HASHES
        }
        self._find_algorithms()

    def check(
        self, method: str, uri: str, authorization: str | None, *, host: str, now_ns: int, proved: bool = False
    ) -> Refusal | None:
        """Whether a request may be carried out: None, or with what to refuse it.

        `uri` is what it asks for, `authorization` the header's value, `host` the address that it comes from. What comes
        on a connection that has `proved` itself is heard whatever others at its address have guessed.
        """
        given = next((each for each in parse_schemes(authorization or "") if each.name == "digest"), None)
        if given is None or not given.get("response"):
            return self._challenged(host, now_ns)
        if not proved and (words := self._too_many(host, now_ns)):
            return Refusal(FORBIDDEN, words)
        algorithm = given.get("algorithm").upper() or MD5
        if algorithm not in self._algorithms or given.get("realm") != self.realm:
            return self._challenged(host, now_ns)
        nonce = given.get("nonce")
        if (made_ns := self._made_ns(nonce, host)) is None or not self._fresh(nonce, made_ns, now_ns):
            return self._challenged(host, now_ns, stale=True)
        if track_of(given.get("uri")) != track_of(uri):  # RFC 7616 3.4.6; hosts differ where a relay is between
            return Refusal(BAD_REQUEST, "The credentials are for another address")
        if not self._knows(given, algorithm, method):
            self._wrong.append((now_ns, host))
            return self._challenged(host, now_ns, wrong=True)
        if given.get("qop") and not self._counts_up(nonce, made_ns, given.get("nc")):
            return self._challenged(host, now_ns, stale=True)  # told again, by whoever: with another nonce
        return None

    def check_password(self, user: str, password: str, *, host: str, now_ns: int) -> Refusal | None:
        """Whether a password that was told as it is, as by a page's form, is a user's: None, or with what to refuse it.

        A wrong one counts as a guess from `host`.
        """
        if words := self._too_many(host, now_ns):
            return Refusal(FORBIDDEN, words)
        algorithm = self._algorithms[0]
        told = secret_of(user, self.realm, password, algorithm).encode()
        known = self._users.get(user, {}).get(algorithm) or ("",)  # as much work for nobody's name
        found = [hmac.compare_digest(told, secret.encode()) for secret in known]
        if any(found):
            return None
        self._wrong.append((now_ns, host))
        return Refusal(UNAUTHORIZED, wrong=True)

    # ---- secrets

    def _find_algorithms(self) -> None:
        offered = [name for name in _OFFERED if all(name in secrets for secrets in self._users.values())]
        if not offered:
            raise ValueError(
                "some users have only an MD5 line and others only a SHA-256 line: give all of them one of a kind"
            )
        self._algorithms = tuple(offered)

    def _knows(self, given: Scheme, algorithm: str, method: str) -> bool:
        secrets = self._users.get(user_of(given), {}).get(algorithm) or ("",)  # as much work for nobody's name
        qop = given.get("qop").lower()
        if qop not in ("", "auth") or (qop and not (given.get("nc") and given.get("cnonce"))):
            return False
        told = given.get("response").lower().encode("utf-8", "replace")
        found = [
            hmac.compare_digest(
                told,
                response_of(
                    secret, algorithm=algorithm, nonce=given.get("nonce"), method=method, uri=given.get("uri"),
                    qop=given.get("qop"), nc=given.get("nc"), cnonce=given.get("cnonce"),
                ).encode(),
            ) and secret != ""
            for secret in secrets
        ]  # fmt: skip
        return any(found)

    def _too_many(self, host: str, now_ns: int) -> str:
        """Why nobody is heard at an address for now; empty when they are."""
        while self._wrong and now_ns - self._wrong[0][0] >= GUESSES_NS:
            self._wrong.popleft()
        if sum(where == host for _, where in self._wrong) >= WRONG_GUESSES:
            return f"{WRONG_GUESSES} wrong guesses came from this address, wait a minute"
        if len(self._wrong) >= MOST_WRONG:
            return "Too many wrong guesses came, wait a minute"
        return ""

    # ---- nonces

    def _challenged(self, host: str, now_ns: int, *, stale: bool = False, wrong: bool = False) -> Refusal:
        nonce = self._nonce(host, now_ns)
        told = tuple(challenge(self.realm, nonce, algorithm=name, stale=stale) for name in self._algorithms)
        return Refusal(UNAUTHORIZED, "", told, wrong)

    def _nonce(self, host: str, now_ns: int) -> str:
        """When it was made, what nobody can guess, and a seal: it need not be kept to be known again."""
        head = f"{now_ns & 0xFFFFFFFFFFFFFFFF:016x}{self._draw(8).hex()}"
        return head + self._seal(head, host)

    def _seal(self, head: str, host: str) -> str:
        return hmac.new(self._key, f"{head} {host}".encode("utf-8", "replace"), "sha256").hexdigest()[:32]

    def _made_ns(self, nonce: str, host: str) -> int | None:
        """When a nonce was made for an address; None for one that was not."""
        if not re.fullmatch(r"[0-9a-f]{64}", nonce):
            return None
        head, seal = nonce[:32], nonce[32:]
        return int(head[:16], 16) if hmac.compare_digest(seal, self._seal(head, host)) else None

    def _fresh(self, nonce: str, made_ns: int, now_ns: int) -> bool:
        return 0 <= now_ns - made_ns < NONCE_NS and (nonce in self._counts or made_ns >= self._oldest_ns)

    def _counts_up(self, nonce: str, made_ns: int, nc: str) -> bool:
        """Whether a request's number is above all before it with the same nonce (RFC 7616 3.4), and keep it."""
        if not re.fullmatch(r"[0-9a-f]{8}", nc, re.IGNORECASE):
            return False
        number = int(nc, 16)
        if number <= self._counts.get(nonce, (0, 0))[1]:
            return False
        self._counts[nonce] = made_ns, number
        while len(self._counts) > MOST_COUNTED:
            _, (oldest_ns, _) = self._counts.popitem(last=False)
            self._oldest_ns = max(self._oldest_ns, oldest_ns + 1)
        return True
