"""Deliberate breaks of the library: each changes one rule, from outside.

A break must not be put in and taken back around a call of the store: other requests run
at that time.  It stands from the beginning of a run to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

Patch = Callable[[pytest.MonkeyPatch], None]


class Break(NamedTuple):
    """A rule that is broken, the oracles that may find it, and where to look first."""

    patch: Patch
    oracles: tuple[str, ...]
    kind: str | None = None


BREAKS: dict[str, Break] = {}


def breaks(*oracles: str, kind: str | None = None) -> Callable[[Patch], Patch]:
    """Note a break, which these oracles may find in programs of this kind."""

    def note(patch: Patch) -> Patch:
        BREAKS[patch.__name__] = Break(patch, oracles, kind)
        return patch

    return note
