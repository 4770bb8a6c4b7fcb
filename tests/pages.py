"""The page's side of a widget's comm, as far as tests need it."""

from __future__ import annotations

from typing import Any


def said(widget: Any, word: object) -> None:
    """Have a page's word arrive at a widget, as the kernel hands it over."""
    widget.comm.handle_msg({"content": {"data": {"method": "custom", "content": word}}, "buffers": []})
