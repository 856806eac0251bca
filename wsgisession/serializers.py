"""Values to bytes and back, so that what is read equals what was stored.

This file knows neither sessions nor stores.  JSON would turn a tuple into a list and the
key 1 into "1" without a word; here such values are written with their type beside them,
and what has no faithful form is refused with the path that leads to it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from .errors import SerializationError


class Serializer(Protocol):
    """What the ``serializer`` option takes.

    ``loads(dumps(values))`` must equal ``values``, and equal values should give equal
    bytes: bytes tell whether a list or a dict was changed.
    """

    def dumps(self, values: dict[str, Any], /) -> bytes | str:
        """The values of a session as bytes or text."""

    def loads(self, data: bytes, /) -> dict[str, Any]:
        """The values again; any exception means that ``data`` is corrupt."""


IMMUTABLE = frozenset(
    (type(None), bool, int, float, str, bytes)
    + (datetime, date, time, timedelta, Decimal, UUID)
)
"""Types whose values cannot change under somebody's hands."""

_PLAIN = frozenset((type(None), bool, int, str))
_TAG = "~"
_DEPTH = 100

# What each type is written as beside its tag, and how it is read.
_WRITE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    datetime: ("datetime", lambda value: _moment(value)),
    date: ("date", date.isoformat),
    time: ("time", lambda value: [value.isoformat(), value.fold]),
    timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    Decimal: ("decimal", str),
    float: ("float", repr),  # one that is no number, for which JSON has no name
    UUID: ("uuid", str),
}
_READ: dict[str, Callable[[Any], Any]] = {
    "bytes": base64.b64decode,
    "datetime": lambda v: _of_moment(*v),
    "date": date.fromisoformat,
    "time": lambda v: time.fromisoformat(v[0]).replace(fold=v[1]),
    "timedelta": lambda v: timedelta(*v),
    "decimal": Decimal,
    "float": float,
    "uuid": UUID,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """JSON itself: plain values to octets and back."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _standard() -> Codec:
    # Not in ASCII: two surrogates escaped one by one would be read as one character.
    encode = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), check_circular=False
    ).encode
    decode = json.JSONDecoder().decode
    return Codec(
        encode=lambda value: encode(value).encode("utf-8", "surrogatepass"),
        decode=lambda data: decode(data.decode("utf-8", "surrogatepass")),
    )


STANDARD = _standard()


def _quickest() -> Codec:
    """That of msgspec where it is installed: a third of the time for the same values.

    What it refuses, such as half a surrogate pair, is left to the standard library.
    """
    try:
        import msgspec
    except ImportError:
        return STANDARD
    write, read = msgspec.json.encode, msgspec.json.decode

    def encode(value: Any) -> bytes:
        try:
            return write(value)
        except UnicodeEncodeError:
            return STANDARD.encode(value)

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return STANDARD.decode(data)

    return Codec(encode=encode, decode=decode)


class JSONSerializer:
    """JSON, extended by the types of Python that applications put into sessions.

    None, bool, int, float, str, list, dict (with str and int keys), tuple, set,
    frozenset, bytes, datetime, date, time, timedelta, Decimal and UUID, in any nesting
    up to 100 levels.  Anything else, subclasses of these included, raises
    ``SerializationError``, which names the path.

    :param codec: writes and reads the JSON; None: the quickest that is installed.
    """

    def __init__(self, codec: Codec | None = None) -> None:
        codec = codec or _quickest()
        self._encode, self._decode = codec.encode, codec.decode

    def dumps(self, values: dict[str, Any], /) -> bytes:
        plain = values if _is_plain(values, _DEPTH) else _tagged(values, "", _DEPTH)
        return self._encode(plain)

    def loads(self, data: bytes, /) -> dict[str, Any]:
        values = self._decode(data)
        # Only a tagged value brings a "~" key, and text that looks like one costs a
        # walk and nothing else.
        if b'"~":' in data:
            values = _untagged(values)
        if type(values) is not dict:
            raise ValueError("a session is a dict")
        return values


def _is_plain(value: Any, depth: int) -> bool:
    """Whether JSON gives ``value`` back as it is."""
    kind = type(value)
    if kind is int:
        return _is_short(value)
    if kind is float:
        return isfinite(value)
    if kind in _PLAIN:
        return True
    if not depth:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or key == _TAG:
                return False
            if type(item) is not str and not _is_plain(item, depth - 1):
                return False
        return True
    if kind is list:
        for item in value:
            if type(item) is not str and not _is_plain(item, depth - 1):
                return False
        return True
    return False


def _is_short(number: int) -> bool:
    """Whether Python would read so many digits (4300, or as it was told)."""
    if number.bit_length() < 2000:  # it cannot be told less than 640 digits
        return True
    try:
        str(number)
    except ValueError:
        return False
    return True


def _tagged(value: Any, path: str, depth: int) -> Any:
    """``value`` with the type written beside whatever JSON would change."""
    kind = type(value)
    if kind is int and not _is_short(value):
        raise SerializationError(path, "it has more digits than Python reads")
    if kind in _PLAIN or (kind is float and isfinite(value)):
        return value
    if kind in _WRITE:
        return _scalar(value, path)
    if not depth:
        raise SerializationError(path, f"it is nested deeper than {_DEPTH} levels")
    if kind is dict:
        return _dict(value, path, depth)
    if kind in (list, tuple):
        items = [_tagged(v, f"{path}[{i}]", depth - 1) for i, v in enumerate(value)]
        return items if kind is list else {_TAG: "tuple", "v": items}
    if kind in (set, frozenset):
        items = [_tagged(v, f"{path}{{}}", depth - 1) for v in value]
        # A set has no order; its bytes must, or every look at it would be a change.
        return {_TAG: kind.__name__, "v": sorted(items, key=STANDARD.encode)}
    raise SerializationError(
        path,
        f"{kind.__module__}.{kind.__qualname__} is not one of the types that are read "
        "back as they were; convert it, or give a serializer of your own",
    )


def _scalar(value: Any, path: str) -> Any:
    tag, write = _WRITE[type(value)]
    if getattr(value, "tzinfo", None) is not None:
        offset = value.utcoffset()
        if offset is None:
            raise SerializationError(path, "its time zone has no offset")
        if offset.microseconds:
            reason = "the offset of its time zone is no whole number of seconds"
            raise SerializationError(path, reason)
    return {_TAG: tag, "v": write(value)}


def _moment(value: datetime) -> list[Any]:
    """A moment with its zone: the name of it where it has one, else its offset."""
    zone = value.tzinfo
    if type(zone) is not ZoneInfo or not _can_be_found(zone):
        return [value.isoformat(), value.fold]
    return [value.replace(tzinfo=None).isoformat(), value.fold, zone.key]


def _can_be_found(zone: ZoneInfo) -> bool:
    try:
        return ZoneInfo(zone.key) is zone
    except (ValueError, TypeError, OSError, LookupError):
        return False


def _of_moment(text: str, fold: int, zone: str | None = None) -> datetime:
    value = datetime.fromisoformat(text).replace(fold=fold)
    return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))


def _dict(value: dict[Any, Any], path: str, depth: int) -> Any:
    items = []
    for key, item in value.items():
        if type(key) is not str and type(key) is not int:
            kind = type(key).__name__
            raise SerializationError(
                f"{path}[{kind}]", f"its key is {kind}; keys are str or int"
            )
        if type(key) is int and not _is_short(key):
            raise SerializationError(f"{path}[int]", "its key has too many digits")
        step = key if not path and type(key) is str else f"{path}[{key!r}]"
        items.append([key, _tagged(item, step, depth - 1)])
    if _TAG not in value and all(type(key) is str for key, _ in items):
        return dict(items)
    return {_TAG: "dict", "v": items}


def _untagged(value: Any) -> Any:
    if type(value) is list:
        return [_untagged(item) for item in value]
    if type(value) is not dict:
        return value
    if _TAG not in value:
        return {key: _untagged(item) for key, item in value.items()}
    return _READ[value[_TAG]](_untagged(value["v"]))
