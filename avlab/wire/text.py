"""What a peer or a file says, made fit to be printed: it may hold what commands a terminal, or turns its text about.

Pure.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, overload

E = TypeVar("E", bound=BaseException)
F = TypeVar("F", bound=Callable[..., Any])

MOST_CHARACTERS = 1_000
"""As long as a sentence may be, whoever says it."""

MOST_NOTICES = 500
"""So many different things are said of one server, client or relay at the most."""

_JOINERS = (
    "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # words and emoji are written with them, and they move nothing
)


def printable(text: object, *, most: int = MOST_CHARACTERS, lines: bool = False) -> str:
    """`str(text)` without anything that a terminal acts on, of at most `most` characters.

    Control characters (escape sequences begin with one), those that turn the writing direction, and halves of
    surrogates come out as `\\x1b` or `\\u202e`; line breaks and other white space as blanks, but for the line breaks of
    a text of several `lines`.
    """
    said = str(text)[: most + 1]  # what a stranger goes on to say costs nothing
    if not said.isprintable():
        said = "".join(_shown(character, lines) for character in said)
    return said if len(said) <= most else said[: max(0, most - 3)] + "..."


def _shown(character: str, lines: bool) -> str:
    if character.isprintable() or character in _JOINERS or (lines and character == "\n"):
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


MOST_OF_A_PERSON = 40
"""Characters of what people call themselves."""

_MOST_MARKS = 4
"""Accents on one letter: more of them are written over the lines above and below."""


def person(text: str) -> str:
    """What somebody goes by, made fit to be shown: at most 40 characters, without what controls or turns the text.

    Control and bidirectional characters are left out, white space is one blank. Empty when nothing is left. It is text
    still, and no HTML: `<` is for a page to escape.
    """
    kept: list[str] = []
    marks = 0
    for character in text[: 16 * MOST_OF_A_PERSON]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if character.isspace():
            character = " "
        elif not (character.isprintable() or character in _JOINERS) or marks > _MOST_MARKS:
            continue
        if character != " " or (kept and kept[-1] != " "):
            kept.append(character)
    said = "".join(kept[:MOST_OF_A_PERSON]).strip(" " + _JOINERS)
    return said if any(character.isprintable() and not character.isspace() for character in said) else ""


def check_name(name: object) -> str:
    """One's own name, as others are shown it. TypeError for what is no text, ValueError where little of it is left."""
    if not isinstance(name, str):
        raise TypeError(f"name must be text, as in name='Ada', not {type(name).__name__}")
    said = person(name)
    if len(" ".join(name.split())) > MOST_OF_A_PERSON:
        raise ValueError(f"name has at most {MOST_OF_A_PERSON} characters, and this one {len(name)}: shorten it")
    if name and not said:
        raise ValueError("name has no character that can be shown: write it in letters")
    return said


_SHORT_OF_FILES = {number: os.strerror(number) for number in (errno.EMFILE, errno.ENFILE)}
"""The system's own words, as long as nobody has made a sentence of them."""

TOO_MANY_FILES = "too many files are open: end other programs, or raise the limit (ulimit -n)"


def tidied(error: E) -> E:
    """The very error, with its message printable: an exception may quote a peer, and a notebook prints it as it is.

    What the system says when it is out of descriptors is said with what to do about it.
    """
    if isinstance(error, OSError) and error.errno in _SHORT_OF_FILES and error.strerror == _SHORT_OF_FILES[error.errno]:
        error.strerror = TOO_MANY_FILES
    if error.args and any(isinstance(said, str) and not said.isprintable() for said in error.args):
        error.args = tuple(printable(said, lines=True) if isinstance(said, str) else said for said in error.args)
    if isinstance(error, OSError) and isinstance(error.strerror, str):  # said instead of the arguments
        error.strerror = printable(error.strerror)
    return error


class Notices(Sequence[str]):
    """What a person should know of a handle, a sentence each, oldest first: each once, and fit to be printed.

    Peers are quoted in them: beyond `MOST_NOTICES` nothing is kept, so that none can fill the memory with its words.
    """

    def __init__(self) -> None:
        self._kept: list[str] = []

    def add(self, words: str) -> None:
        """Keep a sentence, unless it is known; from any thread."""
        words = printable(words)
        if words not in self._kept and len(self._kept) < MOST_NOTICES:
            self._kept.append(words)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        return self._kept[at]


# ---- what is misspelt


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that ends a sentence on a name that is none; empty when none that is known is like it."""
    near = get_close_matches(name, list(known), 1)
    return f": did you mean {near[0]!r}?" if near else ""


def check_keywords(function: Callable[..., Any], given: Iterable[str], called: str) -> None:
    """TypeError, with the nearest that there is, for the first keyword that a function does not have.

    It is for who has caught a TypeError of a call: Python before 3.13 names the keyword alone.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    unknown = next((name for name in given if name not in named), None)
    if unknown is not None:
        words = f"{called}() got an unexpected keyword argument {unknown!r}"
        raise TypeError(words + nearest(unknown, (name for name in named if name != "self"))) from None


def spelt(made: F) -> F:
    """A function, or a class's constructor, that answers a misspelt keyword as `check_keywords` does."""
    function = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]

    @functools.wraps(function)
    def checked(*args: Any, **given: Any) -> Any:
        try:
            return function(*args, **given)
        except TypeError:
            check_keywords(function, given, made.__name__)
            raise

    if isinstance(made, type):
        made.__init__ = checked  # type: ignore[misc]
        return made
    return checked  # type: ignore[return-value]
