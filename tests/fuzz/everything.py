"""All targets, whichever file they are in."""

from __future__ import annotations

from .http_targets import HTTP_TARGETS
from .targets import TARGETS as OTHER_TARGETS

TARGETS = (*OTHER_TARGETS, *HTTP_TARGETS)
BY_NAME = {target.name: target for target in TARGETS}
