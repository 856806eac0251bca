"""Text that frameworks have types of their own for, and sessions keep for them.

It knows serializers alone, and no framework.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..serializers import Kind


def safe_text(tag: str, type_: type[str]) -> Kind:
    """Text that is marked as safe to show, and still is when it is read back."""
    return Kind(
        tag=tag,
        knows=lambda value: isinstance(value, type_),
        write=str.__str__,
        read=type_,
    )


def lazy_text(knows: Callable[[Any], bool]) -> Kind:
    """A translation made when it is shown: it becomes the text that it is now."""
    return Kind(tag="lazy", knows=knows, write=str, read=str)
