"""Values to bytes and back, so that what is read equals what was stored.

This file knows neither sessions nor stores.  JSON would turn a tuple into a list and the
key 1 into "1" without a word; here such values are written with their type beside them.
A subclass that equals its base value is stored as the base, and what has no faithful
form is refused with the path that leads to it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from .errors import ConfigurationError, SerializationError

__all__ = ["JSONLibrary", "JSONSerializer", "Kind", "Serializer"]


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
"""Types whose values nobody can change.  Exactly these: a subclass may have attributes,
which can be changed."""

_FREE = frozenset((type(None), bool, str))
"""Types that JSON gives back whatever the value."""

_WORD = 2**63
_TAG = "~"
_DEPTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type that is read back as itself, and not as what it derives from.

    A session with values of a kind can only be read where the kind is known: to take one
    out of use, go on reading it for as long as a session lives.
    """

    tag: str
    """Its name in the stored bytes, such as ``"markup"``; never to be changed."""
    knows: Callable[[Any], bool]
    """Whether a value is of the kind; asked of no value of a built-in type."""
    write: Callable[[Any], Any]
    """A value as something that can be stored."""
    read: Callable[[Any], Any]
    """The value again; it should equal the one that was written."""


# -- the types that are built in ---------------------------------------------------------


def _moment(value: datetime) -> list[Any]:
    """A moment with its zone: the name of it where it has one, else its offset."""
    zone = value.tzinfo
    if isinstance(zone, ZoneInfo) and _can_be_found(zone, value):
        return [value.replace(tzinfo=None).isoformat(), value.fold, zone.key]
    return [value.isoformat(), value.fold]


def _can_be_found(zone: ZoneInfo, moment: datetime) -> bool:
    try:
        found = ZoneInfo(zone.key)
    except (ValueError, TypeError, OSError, LookupError):
        return False
    # Equal at this moment is enough for a subclass, such as pendulum's.
    is_own = type(zone) is not ZoneInfo and found.utcoffset(moment) == zone.utcoffset(
        moment
    )
    return found is zone or is_own


def _of_moment(text: str, fold: int, zone: str | None = None) -> datetime:
    value = datetime.fromisoformat(text).replace(fold=fold)
    return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))


# What each type is written as beside its tag, and how it is read.
_WRITE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    datetime: ("datetime", _moment),
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

# A value of a subclass as one of its base, whatever the subclass has overridden.  The
# base is given: libraries that stop the clock put a subclass in place of ``datetime``.
_BASE: dict[type, Callable[[Any, Any], Any]] = {
    int: lambda base, value: int.__add__(value, 0),
    str: lambda base, value: str.__str__(value),
    float: lambda base, value: float.__float__(value),
    bytes: lambda base, value: bytes(memoryview(value)),
    datetime: lambda base, v: base(
        *(v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond),
        tzinfo=v.tzinfo,
        fold=v.fold,
    ),
    date: lambda base, value: base(value.year, value.month, value.day),
    time: lambda base, v: base(
        v.hour, v.minute, v.second, v.microsecond, tzinfo=v.tzinfo, fold=v.fold
    ),
    timedelta: lambda base, value: timedelta.__add__(value, timedelta(0)),
    Decimal: lambda base, value: base(value),
    UUID: lambda base, value: base(int=value.int),
    list: lambda base, value: list(value),
    tuple: lambda base, value: tuple(value),
    dict: lambda base, value: dict(value.items()),
    set: lambda base, value: set(value),
    frozenset: lambda base, value: frozenset(value),
}
_BUILT_IN = frozenset(_BASE) | {bool, type(None)}


def _in_base(value: Any) -> Any:
    """The value of a built-in type that ``value`` equals; TypeError if there is none."""
    for base in type(value).__mro__:
        if base in _BASE:
            plain = _BASE[base](base, value)
            if type(plain) is base and _are_alike(plain, value):
                return plain
            raise TypeError(f"it does not equal the {base.__name__} it derives from")
    raise TypeError(
        "it is not one of the types that are read back as they were; convert it, or give "
        "JSONSerializer a Kind for it"
    )


def _are_alike(plain: Any, value: Any) -> bool:
    """Whether two values are equal, and one is found in a set or a dict by the other."""
    if plain != plain and value != value:  # neither is a number
        return True
    if plain != value:
        return False
    try:
        return hash(plain) == hash(value)
    except TypeError:
        return True


# -- JSON itself -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONLibrary:
    """Plain values to octets and back."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _standard() -> JSONLibrary:
    # Not in ASCII: two surrogates escaped one by one would be read as one character.
    encode = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), check_circular=False
    ).encode
    decode = json.JSONDecoder().decode
    return JSONLibrary(
        encode=lambda value: encode(value).encode("utf-8", "surrogatepass"),
        decode=lambda data: decode(data.decode("utf-8", "surrogatepass")),
    )


STANDARD = _standard()


def _quickest() -> JSONLibrary:
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

    return JSONLibrary(encode=encode, decode=decode)


# -- the serializer ----------------------------------------------------------------------


class JSONSerializer:
    """JSON, extended by the types of Python that applications put into sessions.

    None, bool, int, float, str, list, dict (with str and int keys), tuple, set,
    frozenset, bytes, datetime, date, time, timedelta, Decimal and UUID, in any nesting
    up to 100 levels.  A subclass of these comes back as its base, where it equals it.
    Anything else raises ``SerializationError``, which names the path.

    :param kinds: further types, and subclasses that are to keep their own; the first
        that knows a value writes it.
    :param library: writes and reads the JSON; None: the quickest that is installed.

    Raises ``ConfigurationError`` for a tag that cannot be used.
    """

    __slots__ = ("_decode", "_encode", "_kinds", "_readers")

    def __init__(
        self, kinds: Iterable[Kind] = (), *, library: JSONLibrary | None = None
    ) -> None:
        library = library or _quickest()
        self._encode, self._decode = library.encode, library.decode
        self._kinds = tuple(kinds)
        self._readers: Mapping[str, Callable[[Any], Any]] = _readers(self._kinds)

    def dumps(self, values: dict[str, Any], /) -> bytes:
        """As octets; raises ``SerializationError`` with the path to what cannot be."""
        return self._encode(
            values if _is_plain(values, _DEPTH) else self._tagged(values, "", ())
        )

    def loads(self, data: bytes, /) -> dict[str, Any]:
        """The values again; raises ``ValueError`` or its kin for octets of others."""
        values = self._decode(data)
        # Only a tagged value brings a "~" key, and text that looks like one costs a
        # walk and nothing else.
        if b'"~":' in data:
            values = self._untagged(values)
        if type(values) is not dict:
            raise ValueError("a session is a dict")
        return values

    def __repr__(self) -> str:
        tags = ", ".join(kind.tag for kind in self._kinds)
        return f"JSONSerializer({tags})"

    # -- writing -----------------------------------------------------------------------

    def _tagged(self, value: Any, path: str, within: tuple[int, ...]) -> Any:
        """``value`` with the type written beside whatever JSON would change.

        ``within`` are the identities of the values around it.
        """
        plain = value
        if type(value) not in _BUILT_IN:
            for known in self._kinds:
                if known.knows(value):
                    return self._of_kind(known, value, path, within)
            plain = _or_refused(value, path)
        kind = type(plain)
        if kind is int and not _is_short(plain):
            raise SerializationError(path, "it has more digits than Python reads")
        if kind in _FREE or kind is int or (kind is float and isfinite(plain)):
            return plain
        if kind in _WRITE:
            return _scalar(plain, path)
        within = _entered(value, path, within)
        if kind is dict:
            return self._dict(plain, path, within)
        if kind is list or kind is tuple:
            items = [
                self._tagged(each, f"{path}[{n}]", within)
                for n, each in enumerate(plain)
            ]
            return items if kind is list else {_TAG: "tuple", "v": items}
        items = [self._tagged(each, f"{path}{{}}", within) for each in plain]
        # A set has no order; its bytes must, or every look at it would be a change.
        return {_TAG: kind.__name__, "v": sorted(items, key=STANDARD.encode)}

    def _of_kind(
        self, kind: Kind, value: Any, path: str, within: tuple[int, ...]
    ) -> dict[str, Any]:
        written = kind.write(value)
        if type(written) not in IMMUTABLE:
            within = _entered(value, path, within)
        return {_TAG: kind.tag, "v": self._tagged(written, path, within)}

    def _dict(self, value: dict[Any, Any], path: str, within: tuple[int, ...]) -> Any:
        items = []
        for key, item in value.items():
            name = _key(key, path)
            step = name if not path and type(name) is str else f"{path}[{name!r}]"
            items.append([name, self._tagged(item, step, within)])
        if _TAG not in value and all(type(name) is str for name, _ in items):
            return dict(items)
        return {_TAG: "dict", "v": items}

    # -- reading -----------------------------------------------------------------------

    def _untagged(self, value: Any) -> Any:
        if type(value) is list:
            return [self._untagged(item) for item in value]
        if type(value) is not dict:
            return value
        if _TAG not in value:
            return {key: self._untagged(item) for key, item in value.items()}
        return self._readers[value[_TAG]](self._untagged(value["v"]))


def _readers(kinds: Iterable[Kind]) -> dict[str, Callable[[Any], Any]]:
    """What reads each tag."""
    readers = dict(_READ)
    for kind in kinds:
        if not isinstance(kind.tag, str) or not re.fullmatch(
            r"[a-z][a-z0-9._-]*", kind.tag
        ):
            raise ConfigurationError(
                f"the tag of a kind must be lower-case letters, digits and any of ._- "
                f"that begin with a letter, not {kind.tag!r}"
            )
        if kind.tag in readers:
            owner = "a built-in type" if kind.tag in _READ else "another kind"
            raise ConfigurationError(f"the tag {kind.tag!r} is that of {owner} already")
        readers[kind.tag] = kind.read
    return readers


def _is_plain(value: Any, depth: int) -> bool:
    """Whether JSON gives ``value`` back as it is.

    A round trip and a comparison would take as long, and would take an ``OrderedDict``
    for a dict in another order.
    """
    kind = type(value)
    if kind is dict:
        if _TAG in value:
            return False
        for key in value:
            if type(key) is not str:
                return False
        value = value.values()
    elif kind is not list:
        return kind in _FREE or _is_plain_number(value)
    if not depth:
        return False
    for item in value:
        kind = type(item)
        if kind is str or kind in _FREE or (kind is int and -_WORD < item < _WORD):
            continue
        if kind is list or kind is dict:
            if not _is_plain(item, depth - 1):
                return False
        elif not _is_plain_number(item):
            return False
    return True


def _is_plain_number(value: Any) -> bool:
    kind = type(value)
    return (kind is int and _is_short(value)) or (kind is float and isfinite(value))


def _is_short(number: int) -> bool:
    """Whether Python would read so many digits (4300, or as it was told)."""
    if number.bit_length() < 2000:  # it cannot be told less than 640 digits
        return True
    try:
        str(number)
    except ValueError:
        return False
    return True


def _entered(value: Any, path: str, within: tuple[int, ...]) -> tuple[int, ...]:
    """``within`` for the items of a value."""
    if id(value) in within:
        raise SerializationError(path, "it contains itself")
    if len(within) == _DEPTH:
        raise SerializationError(path, f"it is nested deeper than {_DEPTH} levels")
    return (*within, id(value))


def _or_refused(value: Any, path: str) -> Any:
    try:
        return _in_base(value)
    except Exception as error:
        named = f"{type(value).__module__}.{type(value).__qualname__}"
        raise SerializationError(path, f"{named}: {error}") from error


def _key(key: Any, path: str) -> str | int:
    """A key as JSON or a tagged dict can have it: text or a whole number."""
    kind, plain = type(key).__name__, key
    if type(key) not in _BUILT_IN and isinstance(key, (str, int)):
        plain = _or_refused(key, f"{path}[{kind}]")
    if type(plain) is not str and type(plain) is not int:
        reason = f"its key is {kind}; keys are str or int"
        raise SerializationError(f"{path}[{kind}]", reason)
    if type(plain) is int and not _is_short(plain):
        raise SerializationError(f"{path}[int]", "its key has too many digits")
    return plain


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
