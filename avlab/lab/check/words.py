"""What is said of a student's work. It asks the work's own objects, for names and reprs, and they may fail at that."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any


def short(value: Any) -> str:
    """A value as a sentence shows it: at most 60 characters of its repr."""
    try:
        text = repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"a {type(value).__name__} whose repr fails with {type(error).__name__}"
    return text if len(text) <= 60 else f"{text[:40]} ... ({len(text)} characters)"


def name(work: Any) -> str:
    """What a function, class or object is called."""
    try:
        return str(getattr(work, "__name__", type(work).__name__))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return str(type.__getattribute__(type(work), "__name__"))


def said(error: BaseException) -> str:
    """An error's words; none, where it fails at that."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def told(error: BaseException) -> str:
    """An error's kind and words."""
    words = said(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def no_function(work: Any) -> str:
    """What is said of work that is no function at all."""
    return f"{short(work)} is no function: it is made with def, and handed over without parentheses."


def nothing(call: str, given: Any) -> str | None:
    """What is to be said of a function that is not written yet, or has no return, or not an ordinary one."""
    if isinstance(given, Coroutine):
        given.close()
        return f"{call} returns nothing yet, as it is made with async def: leave out async."
    if isinstance(given, Generator):
        return f"{call} yields instead of returning: put return in place of yield."
    if given is ...:
        return f"{call} is not written yet: put your own in place of ..."
    return f"{call} returns nothing: is there a return?" if given is None else None
