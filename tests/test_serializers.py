"""What is read back equals what was stored, or storing it is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

import wsgisession
from wsgisession import ConfigurationError, JSONSerializer, Kind, SerializationError
from wsgisession.serializers import IMMUTABLE, STANDARD

from .conftest import missing

fuzz = settings(deadline=None, database=None)


class Installations:
    """The serializer where msgspec is installed, and where it is not.

    Each must read what the other wrote, and both mean the same by it.
    """

    def __init__(self) -> None:
        self.quick, self.plain = JSONSerializer(), JSONSerializer(library=STANDARD)

    def dumps(self, values: dict[str, Any]) -> bytes:
        data, other = self.quick.dumps(values), self.plain.dumps(values)
        assert strict_equal(self.quick.loads(other), self.plain.loads(data))
        return data

    def loads(self, data: bytes) -> dict[str, Any]:
        try:
            values = self.plain.loads(data)
        except Exception:
            return self.quick.loads(data)
        assert strict_equal(self.quick.loads(data), values)
        return values


json_ = Installations()


def back(value: Any) -> Any:
    """A value after it was stored and read."""
    return json_.loads(json_.dumps({"key": value}))["key"]


def refusal(value: Any) -> SerializationError:
    """The error with which a value is refused."""
    with pytest.raises(SerializationError) as caught:
        json_.dumps({"key": value})
    return caught.value


def form(value: Any) -> Any:
    """A value as something that is equal only to the same value of the same types.

    ``1``, ``True`` and ``1.0`` differ, and so do ``0.0`` and ``-0.0``; a NaN equals
    itself; a dict has an order, a set has none.
    """
    kind = type(value)
    if kind is dict:
        return kind, tuple((form(k), form(v)) for k, v in value.items())
    if kind in (list, tuple):
        return kind, tuple(form(item) for item in value)
    if kind in (set, frozenset):
        return kind, frozenset(form(item) for item in value)
    if kind in (datetime, time):
        zone = getattr(value.tzinfo, "key", None)
        return kind, value.isoformat(), value.fold, zone
    return kind, repr(value)


def strict_equal(one: Any, two: Any) -> bool:
    """Whether two values are the same value of the same types, at any depth."""
    return bool(form(one) == form(two))


def rebuilt(value: Any) -> Any:
    """An equal value, made anew, whose sets were filled in the reverse order."""
    kind = type(value)
    if kind is dict:
        return {key: rebuilt(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind(rebuilt(item) for item in value)
    if kind in (set, frozenset):
        return kind(rebuilt(item) for item in reversed(list(value)))
    return value


# -- any value in any nesting ------------------------------------------------------------


def without_pairs(text: str) -> str:
    """Text without two surrogates in a row; of those there is a test of their own."""
    return "".join(
        c
        for n, c in enumerate(text)
        if not ("\ud800" <= c <= "\udfff" and "\ud800" <= text[n - 1 : n] <= "\udfff")
    )


OFFSETS = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda offset: timezone(offset - offset % timedelta(seconds=1))
)
CITIES = ["Europe/Paris", "America/St_Johns", "Australia/Lord_Howe", "Africa/Monrovia"]
FOUND = [ZoneInfo(city) for city in CITIES if city in available_timezones()]
ZONES = st.one_of(OFFSETS, *([st.sampled_from(FOUND)] if FOUND else []))
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=())).map(without_pairs),
    st.sampled_from(["~", "~~", '"~":', "v", "", "\0", "\ud800", "null", "\u2028"]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.binary(),
    st.datetimes(timezones=st.none() | ZONES),
    st.datetimes().map(lambda moment: moment.replace(fold=1)),
    st.dates(),
    st.times(timezones=st.none() | OFFSETS),
    st.times().map(lambda moment: moment.replace(fold=1)),
    st.timedeltas(),
    st.decimals().filter(lambda number: not number.is_snan()),
    st.uuids(),
)
HASHABLE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = TEXT | st.integers()
VALUES = st.recursive(
    SCALARS | st.just(Decimal("sNaN")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=12,
)
SESSIONS = st.dictionaries(TEXT, VALUES, max_size=4)


class TestPitfallSilentChange:
    """JSON turns ``{1: ..}`` into ``{"1": ..}`` and tuples into lists without a word."""

    @fuzz
    @given(SESSIONS)
    def test_what_is_read_is_what_was_stored(self, values: dict[str, Any]) -> None:
        """Every supported value in any nesting comes back as it was, type by type."""
        assert strict_equal(json_.loads(json_.dumps(values)), values)

    @fuzz
    @given(SESSIONS)
    def test_equal_values_are_equal_bytes(self, values: dict[str, Any]) -> None:
        """An equal value made elsewhere is no change; nor is one that was read."""
        data = json_.dumps(values)
        assert json_.dumps(rebuilt(values)) == data
        assert json_.dumps(json_.loads(data)) == data

    @fuzz
    @given(st.lists(HASHABLE, max_size=6, unique=True), st.randoms())
    def test_a_set_has_no_order_of_insertion(
        self, items: list[Any], chance: Any
    ) -> None:
        """However a set was filled, its bytes are the same."""
        data = json_.dumps({"key": set(items)})
        chance.shuffle(items)
        assert json_.dumps({"key": set(items)}) == data

    def test_a_set_has_no_order_of_its_process(self) -> None:
        """A process that hashes text otherwise writes the same bytes."""
        code = (
            "import sys; from wsgisession import JSONSerializer as J; sys.stdout.buffer."
            "write(J().dumps({'a': {*map(str, range(50)), (b'x', frozenset('abc'))}}))"
        )
        root = str(Path(wsgisession.__file__).parents[1])
        written = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout
            for seed in ("1", "2", "3")
        }
        assert len(written) == 1
        assert len(written.pop()) > 200

    @pytest.mark.parametrize(
        "value",
        [
            {1: "a"},
            {"1": "a", 1: "b"},
            {-1: {2: {3: ()}}},
            (),
            ((),),
            (1, [2, (3,)]),
            [(), [], {}, set(), frozenset()],
            {1, 2.5, "3", b"4", (5,), frozenset({6})},
            {frozenset({frozenset()}), frozenset()},
            b"",
            bytes(range(256)),
            "\0\x7f\x80\u2028\U0001f600",
            0.1,
            -0.0,
            5e-324,
            1.7976931348623157e308,
            2**64,
            -(10**4299),
            Decimal("1.10"),
            Decimal("-0"),
            Decimal("1E+999999"),
            UUID(int=0),
            timedelta.min,
            timedelta.max,
            timedelta(microseconds=-1),
            date.min,
            datetime.max,
            datetime(1, 1, 1, tzinfo=timezone.utc),
            time(23, 59, 59, 999999, timezone(timedelta(hours=-5, seconds=7))),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_by_example(self, value: Any) -> None:
        """The values that a plain JSON would change, or that stand at a border."""
        assert strict_equal(back(value), value)

    def test_the_control(self) -> None:
        """Strict equality is stricter than Python's, or it would prove nothing."""
        for one, two in [
            (1, True),
            (1, 1.0),
            (0.0, -0.0),
            ([1], (1,)),
            ({1: 2}, {True: 2}),
            ({1}, frozenset({1})),
            (Decimal("1.0"), Decimal("1.00")),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ]:
            assert not strict_equal(one, two)
        assert strict_equal({"a": [float("nan")]}, {"a": [float("nan")]})
        plain = json.loads(json.dumps({"a": {"1": (2,)}}))
        assert not strict_equal(plain, {"a": {1: (2,)}})


class TestWhatCannotChange:
    def test_are_exactly_the_immutable_types(self) -> None:
        """A subclass may have attributes, so it is none of them."""
        assert {int, str, bytes, type(None), datetime, UUID} <= IMMUTABLE
        assert not {Text, Colour, tuple, frozenset, list, dict, set} & IMMUTABLE


class TestNumbers:
    @pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
    def test_floats_that_are_no_numbers(self, text: str) -> None:
        """NaN and the infinities come back."""
        assert strict_equal(back(float(text)), float(text))

    @pytest.mark.parametrize(
        "text", ["NaN", "-NaN", "sNaN", "NaN123", "Infinity", "-0"]
    )
    def test_decimals_that_are_no_numbers(self, text: str) -> None:
        """A Decimal comes back with sign, signal and payload."""
        assert repr(back(Decimal(text))) == repr(Decimal(text))

    @pytest.mark.parametrize(
        "value",
        [10**4300, [10**4300], {10**4300: 1}, {10**4300}],
        ids=["bare", "list", "key", "set"],
    )
    def test_an_int_too_long_to_be_read_is_refused(self, value: Any) -> None:
        """Python reads no more than 4300 digits, so no more are stored."""
        assert "digits" in refusal(value).reason

    def test_the_path_of_an_int_too_long(self) -> None:
        """It is named like any other value that is refused."""
        assert refusal({"a": [10**4300]}).path == "key['a'][0]"


class TestText:
    @pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"], ids=ascii)
    def test_a_lone_surrogate(self, text: str) -> None:
        """Text that is no Unicode, such as an odd file name, comes back."""
        assert strict_equal(back(text), text)
        assert strict_equal(back({text: text}), {text: text})

    def test_a_pair_of_surrogates(self) -> None:
        """Two surrogates in a row come back as two, or are refused."""
        with suppress(SerializationError):
            assert strict_equal(back("\ud83d\ude00"), "\ud83d\ude00")


def zone(name: str) -> ZoneInfo:
    """A time zone of the system's data."""
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        missing(f"the time zone {name}")
        raise


class Summer(tzinfo):
    """A zone of the application's own, which happens to have a key."""

    key = "Europe/Paris"

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=9)

    def dst(self, moment: datetime | None) -> None:
        return None


PARIS = [
    datetime(2024, 1, 15, 12, 30),
    datetime(2024, 7, 15, 12, 30, 0, 1),
    datetime(2024, 10, 27, 2, 30),  # happens twice, this is the first
    datetime(2024, 10, 27, 2, 30, fold=1),
    datetime(2024, 3, 31, 2, 30),  # never happens
]


class TestTimeZones:
    @pytest.mark.parametrize("moment", PARIS, ids=str)
    def test_a_moment_stays_the_moment(self, moment: datetime) -> None:
        """Instant, wall clock, offset and fold come back from any zone."""
        stored = moment.replace(tzinfo=zone("Europe/Paris"))
        read = back(stored)
        assert read.timestamp() == stored.timestamp()
        assert read.utcoffset() == stored.utcoffset()
        assert read.replace(tzinfo=None) == moment
        assert read.fold == moment.fold

    @pytest.mark.parametrize(
        "moment",
        PARIS,
        ids=str,
    )
    def test_a_moment_equals_what_was_stored(self, moment: datetime) -> None:
        """Also at the change of the clocks, where a fixed offset equals no zone."""
        stored = moment.replace(tzinfo=zone("Europe/Paris"))
        assert back(stored) == stored

    def test_a_zone_stays_a_zone(self) -> None:
        """A day added to what was read gives the same as before, over summer time."""
        stored = datetime(2024, 3, 30, 12, tzinfo=zone("Europe/Paris"))
        day = timedelta(days=1)
        assert (back(stored) + day).timestamp() == (stored + day).timestamp()

    @pytest.mark.parametrize("microseconds", [1, -1, 999_999])
    def test_an_offset_below_a_second(self, microseconds: int) -> None:
        """An offset of less than a second comes back, or is refused."""
        offset = timezone(timedelta(microseconds=microseconds))
        with suppress(SerializationError):
            assert back(time(1, tzinfo=offset)).utcoffset() == offset.utcoffset(None)
            moment = datetime(2024, 1, 1, tzinfo=offset)
            assert back(moment) == moment

    def test_a_zone_of_another_kind_keeps_its_offset(self) -> None:
        """Only the standard library's zones are known by their key."""
        zone("Europe/Paris")
        moment = datetime(2024, 1, 1, tzinfo=Summer())
        with suppress(SerializationError):
            assert back(moment) == moment

    def test_a_zone_that_cannot_be_found_again(self) -> None:
        """A zone from a file, under a name of its own, must not cost the session."""
        for folder in map(Path, TZPATH):
            if (folder / "Europe/Paris").exists():
                with (folder / "Europe/Paris").open("rb") as file:
                    moment = datetime(
                        2024, 1, 1, tzinfo=ZoneInfo.from_file(file, "Ours")
                    )
                with suppress(SerializationError):
                    assert back(moment) == moment
                return
        missing("the time zone Europe/Paris")

    def test_a_time_without_an_offset_is_refused(self) -> None:
        """A time of day in a zone with summer time has no offset that could be kept."""
        error = refusal(time(12, tzinfo=zone("Europe/Paris")))
        assert error.path == "key"
        assert "its time zone has no offset" in str(error)

    def test_a_zone_that_says_nothing_is_refused(self) -> None:
        """A zone without an offset would come back as a naive time."""

        class Nowhere(tzinfo):
            def utcoffset(self, moment: datetime | None) -> None:
                return None

        assert refusal(datetime(2024, 1, 1, tzinfo=Nowhere())).path == "key"


# -- keys that look like ours ------------------------------------------------------------


class TestTheTagAsAKey:
    @pytest.mark.parametrize(
        "value",
        [
            {"~": 1},
            {"~": "tuple"},
            {"~": "tuple", "v": [1, 2]},
            {"~": "dict", "v": [["a", 1]]},
            {"~": "nosuch", "v": 1},
            {"~": None},
            {"~": {"~": {"~": "bytes", "v": "YQ=="}}},
            {"~": (1,), "v": {"~": "set"}},
            [{"~": "uuid"}, ({"~": "set", "v": [1]},)],
            {1: {"~": "dict", "v": []}},
            {"~": 1, 1: "~"},
            '"~":',
            ['"~":', {"a": '{"~":"tuple","v":[]}'}],
        ],
        ids=repr,
    )
    def test_in_any_shape(self, value: Any) -> None:
        """A user's dict with the key ``~`` is not taken for one of our notes."""
        assert strict_equal(back(value), value)

    @pytest.mark.parametrize("name", ["~", "v", '"~":'])
    def test_as_a_key_of_the_session(self, name: str) -> None:
        """The session itself may have such a key."""
        for value in (1, (1,), {"~": "tuple", "v": [1]}):
            values = {name: value, "other": b"x"}
            assert strict_equal(json_.loads(json_.dumps(values)), values)


# -- subclasses --------------------------------------------------------------------------


class Colour(IntEnum):
    RED = 1


class Mood(str, Enum):
    GOOD = "good"


class Text(str):
    """Text with an attribute, as frameworks make it."""

    origin = "form"


class Token(dict[str, Any]):
    """What an OAuth library hands out."""

    @property
    def expired(self) -> bool:
        return False


class Moment(datetime):
    """A datetime that shows itself in its own way, as pendulum's does."""

    def isoformat(self, *args: Any) -> str:
        return "a moment"

    def __add__(self, other: Any) -> Any:
        return "a later moment"


class Zone(ZoneInfo):
    """A zone that derives from the standard library's, as pendulum's does."""


class Number(int):
    """A number that shows itself in its own way."""

    def __int__(self) -> int:
        return 99

    def __str__(self) -> str:
        return "ninety-nine"

    __repr__ = __str__


Point = namedtuple("Point", "x y")
MOVED = OrderedDict(a=1, b=2)
MOVED.move_to_end("a")


def of(base: type, *args: Any) -> Any:
    """A value of a fresh subclass."""
    return type(f"Own{base.__name__}", (base,), {})(*args)


SUBCLASSES: list[tuple[Any, Any]] = [
    (Colour.RED, 1),
    (Mood.GOOD, "good"),
    (Text("a"), "a"),
    (Markup("<b>"), "<b>"),
    (Number(5), 5),
    (Token(a=[1]), {"a": [1]}),
    (MOVED, {"b": 2, "a": 1}),
    (defaultdict(list, a=[]), {"a": []}),
    (Counter("aab"), {"a": 2, "b": 1}),
    (Point(1, [2]), (1, [2])),
    (Moment(2024, 1, 2, 3, 4, 5, 6), datetime(2024, 1, 2, 3, 4, 5, 6)),
    (Moment(2024, 10, 27, 2, fold=1), datetime(2024, 10, 27, 2, fold=1)),
    (of(date, 2024, 1, 2), date(2024, 1, 2)),
    (of(time, 1, 2, 3, 4, timezone.utc), time(1, 2, 3, 4, timezone.utc)),
    (of(timedelta, 1, 2, 3), timedelta(1, 2, 3)),
    (of(Decimal, "1.10"), Decimal("1.10")),
    (of(Decimal, "NaN"), Decimal("NaN")),
    (of(UUID, "0" * 31 + "5"), UUID(int=5)),
    (of(float, 1.5), 1.5),
    (of(float, float("nan")), float("nan")),
    (of(bytes, b"a"), b"a"),
    (of(list, [1, (2,)]), [1, (2,)]),
    (of(tuple, (1,)), (1,)),
    (of(set, {1}), {1}),
    (of(frozenset, {Colour.RED}), frozenset({1})),
]


class TestPitfallSubclasses:
    """Markup, StrEnum and OAuth's dict refused: a 500 for every migrant."""

    @pytest.mark.parametrize(
        ("value", "base"), SUBCLASSES, ids=lambda value: type(value).__name__
    )
    def test_is_stored_as_the_base_that_it_equals(self, value: Any, base: Any) -> None:
        """A subclass comes back as its base, wherever it stands."""
        assert strict_equal(back(value), base)
        assert strict_equal(back([0, {"a": (value,)}]), [0, {"a": (base,)}])
        assert json_.dumps({"key": value}) == json_.dumps({"key": base})
        if value == value:
            assert back(value) == value

    @pytest.mark.parametrize(
        ("key", "base"), [(Text("a"), "a"), (Mood.GOOD, "good"), (Colour.RED, 1)]
    )
    def test_also_as_a_key(self, key: Any, base: Any) -> None:
        """A key of a subclass comes back as its base."""
        for value in ({key: 1}, {"a": {key: (2,)}}, {key: {"~": key}}):
            assert back(value) == value
        assert strict_equal(back({key: 1}), {base: 1})
        assert strict_equal(json_.loads(json_.dumps({key: 1})), {base: 1})

    def test_a_key_of_a_subclass_may_be_the_tag(self) -> None:
        """A key that equals the tag is not taken for one."""
        assert strict_equal(back({Text("~"): "tuple"}), {"~": "tuple"})

    @pytest.mark.parametrize("moment", [(2024, 7, 1, 12), (2024, 1, 1, 12)], ids=repr)
    def test_a_zone_that_derives_from_the_standard_one(self, moment: Any) -> None:
        """A moment in such a zone equals what was stored, and still has a zone."""
        zone("Europe/Paris")
        stored = Moment(*moment, tzinfo=Zone("Europe/Paris"))
        read = back(stored)
        assert read == stored
        assert read.tzinfo is ZoneInfo("Europe/Paris")

    def test_while_the_clock_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A library that puts its own datetime in place of ours, as freezegun does."""
        monkeypatch.setattr("wsgisession.serializers.datetime", Moment)
        stored = Moment(2024, 1, 2)
        assert json_.loads(json_.dumps({"a": stored}))["a"] == stored
        monkeypatch.undo()
        assert json_.loads(json_.dumps({"a": stored}))["a"] == stored

    def test_one_that_equals_no_base_is_refused(self) -> None:
        """What would come back as something else is refused, by name."""

        class Folded(str):
            def __eq__(self, other: object) -> bool:
                return isinstance(other, Folded)

            def __hash__(self) -> int:
                return 1

        class Hidden(dict[str, Any]):
            def items(self) -> Any:
                return {"other": 1}.items()

        for value in (Folded("a"), Hidden(a=1)):
            assert type(value).__qualname__ in refusal(value).reason
            assert "it does not equal the" in refusal([value]).reason
        assert refusal({Folded("a"): 1}).path == "key[Folded]"

    def test_one_that_a_set_would_not_find_is_refused(self) -> None:
        """An equal value with a hash of its own makes another set."""

        class Hashed(str):
            def __hash__(self) -> int:
                return 1

            def __eq__(self, other: object) -> bool:
                return str.__eq__(self, other)

        assert "does not equal" in refusal({Hashed("a")}).reason


class TestKinds:
    MARKUP = Kind(
        tag="markup",
        knows=lambda value: isinstance(value, Markup),
        write=str,
        read=Markup,
    )
    FRACTION = Kind(
        tag="fraction",
        knows=lambda value: isinstance(value, Fraction),
        write=lambda value: (value.numerator, value.denominator),
        read=lambda value: Fraction(*value),
    )

    @pytest.mark.parametrize("library", [None, STANDARD], ids=["quickest", "standard"])
    @pytest.mark.parametrize(
        "value",
        [Markup("<b>"), Fraction(1, 3), [Markup("a"), "a", {"b": (Fraction(2),)}]],
        ids=repr,
    )
    def test_keep_their_own(self, value: Any, library: Any) -> None:
        """A value of a kind comes back as itself, at any depth."""
        serializer = JSONSerializer([self.MARKUP, self.FRACTION], library=library)
        values = serializer.loads(serializer.dumps({"a": value, "b": {"~": value}}))
        assert strict_equal(values, {"a": value, "b": {"~": value}})

    def test_the_first_that_knows_a_value_writes_it(self) -> None:
        """Kinds are asked in order, and built-in types never."""
        asked: list[Any] = []

        def knows(value: Any) -> bool:
            asked.append(value)
            return False

        never = Kind(tag="never", knows=knows, write=str, read=str)
        serializer = JSONSerializer([never, self.MARKUP])
        data = serializer.dumps({"a": [1, "b", (b"c",), Markup("d"), None, True]})
        assert asked == [Markup("d")]
        assert type(serializer.loads(data)["a"][3]) is Markup

    def test_may_be_read_for_longer_than_written(self) -> None:
        """A session written without a kind is read with it."""
        data = JSONSerializer().dumps({"a": Markup("b"), "c": (1,)})
        assert JSONSerializer([self.MARKUP]).loads(data) == {"a": "b", "c": (1,)}

    def test_one_that_is_unknown_is_corrupt(self) -> None:
        """A session with a kind that is not configured is an error, and not lost."""
        data = JSONSerializer([self.MARKUP]).dumps({"a": Markup("b")})
        with pytest.raises(KeyError):
            JSONSerializer().loads(data)

    @pytest.mark.parametrize(
        "tag", ["", "Markup", "a b", "~", "1a", "ä", None, 5, 'a"', "a\n"], ids=ascii
    )
    def test_a_tag_with_surprises_is_refused(self, tag: Any) -> None:
        """A tag is a plain word, checked at construction."""
        with pytest.raises(ConfigurationError, match="the tag of a kind must be"):
            JSONSerializer([Kind(tag=tag, knows=bool, write=str, read=str)])

    @pytest.mark.parametrize("tag", ["tuple", "dict", "datetime", "float", "markup"])
    def test_a_tag_is_given_once(self, tag: str) -> None:
        """A tag of a built-in type, or of another kind, is refused."""
        with pytest.raises(ConfigurationError, match=f"{tag!r} is that of"):
            JSONSerializer(
                [self.MARKUP, Kind(tag=tag, knows=bool, write=str, read=str)]
            )

    def test_one_that_writes_what_it_knows_is_refused(self) -> None:
        """A kind that never ends is stopped like any nesting that is too deep."""
        same = Kind(
            tag="same",
            knows=lambda value: True,
            write=lambda value: value,
            read=str,
        )
        with pytest.raises(SerializationError, match="it contains itself"):
            JSONSerializer([same]).dumps({"a": object()})
        anew = Kind(
            tag="anew", knows=lambda value: True, write=lambda value: object(), read=str
        )
        with pytest.raises(SerializationError, match="deeper than 100"):
            JSONSerializer([anew]).dumps({"a": object()})

    def test_are_shown(self) -> None:
        """A serializer shows the tags that it knows beside the built-in types."""
        assert repr(JSONSerializer([self.MARKUP])) == "JSONSerializer(markup)"


# -- what is refused ---------------------------------------------------------------------


class Plain(Enum):
    ONE = 1


class TestRefusals:
    @pytest.mark.parametrize(
        "value",
        [
            Plain.ONE,
            object(),
            object,
            len,
            1j,
            Fraction(1, 3),
            bytearray(b"a"),
            memoryview(b"a"),
            range(3),
            iter([]),
            ...,
            NotImplemented,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_has_no_faithful_form(self, value: Any) -> None:
        """Foreign types are refused, by name, wherever they stand."""
        for wrapped, path in [
            (value, "key"),
            ([0, value], "key[1]"),
            ((value,), "key[0]"),
            ({"price": [value]}, "key['price'][0]"),
            ({5: value}, "key[5]"),
        ]:
            error = refusal(wrapped)
            assert error.path == path
            assert str(error).startswith(f"{path} cannot be stored: ")
            assert type(value).__qualname__ in error.reason

    def test_flashes(self) -> None:
        """Flask's flashes are tuples and Markup: they come back equal."""
        flashes = [("info", "saved"), ("error", Markup("<b>no</b>"))]
        assert back(flashes) == flashes

    def test_the_path_of_a_cart(self) -> None:
        """The path reads as one would write it; of a set it cannot name the place."""
        assert refusal([{(1, Fraction(1))}]).path == "key[0]{}[1]"
        with pytest.raises(SerializationError) as caught:
            json_.dumps({"cart": [{"price": Fraction(1)}]})
        assert str(caught.value).startswith("cart[0]['price'] cannot be stored")

    @pytest.mark.parametrize(
        "key", [None, True, False, 1.5, b"a", (1,), frozenset(), Plain.ONE]
    )
    def test_keys_that_json_would_change(self, key: Any) -> None:
        """A key that is neither str nor int is refused, not turned into text."""
        error = refusal({"a": [{key: 1}]})
        assert error.path.startswith("key['a'][0][")
        assert f"its key is {type(key).__name__}" in error.reason
        with pytest.raises(SerializationError):
            json_.dumps({key: 1})

    def test_cycles(self) -> None:
        """A value within itself is refused in a sentence, with the path into it."""
        ring: list[Any] = []
        ring.append(ring)
        knot: dict[str, Any] = {}
        knot["a"] = [0, (knot,)]
        own = Token()
        own["me"] = own
        for value, path in [
            (ring, "key[0]"),
            (knot, "key['a'][1][0]"),
            (own, "key['me']"),
        ]:
            assert refusal(value).path == path
            assert "it contains itself" in str(refusal(value))

    def test_the_same_value_twice_is_no_cycle(self) -> None:
        """A list that stands in two places is stored twice."""
        shared = [1, (2,)]
        assert back([shared, {"a": shared}]) == [shared, {"a": shared}]

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda inner: [inner],
            lambda inner: (inner,),
            lambda inner: {"a": inner},
            lambda inner: {1: inner},
            lambda inner: frozenset({inner}),
            lambda inner: {"~": inner},
            lambda inner: Token(a=inner),
        ],
        ids=["list", "tuple", "dict", "int-key", "frozenset", "tag", "subclass"],
    )
    def test_a_hundred_levels_and_no_more(self, wrap: Any) -> None:
        """The session and 99 levels within it are stored; one more is refused."""
        value: Any = 5
        for _ in range(99):
            value = wrap(value)
        assert back(value) == value
        error = refusal(wrap(value))
        assert "nested deeper than 100 levels" in error.reason

    def test_every_scalar_may_stand_at_the_last_level(self) -> None:
        """Where an int may stand, bytes may stand."""
        value: Any = b"5"
        for _ in range(99):
            value = [value]
        assert back(value) == value

    def test_the_message_tells_no_data(self) -> None:
        """A path names keys and places, never what is stored."""
        error = refusal({("4111-1111-1111-1111", frozenset({Fraction(1)}))})
        assert "4111" not in str(error)

    @pytest.mark.parametrize(
        "wrap", [lambda o: {o}, lambda o: {o: 1}], ids=["set", "key"]
    )
    def test_a_broken_repr_does_not_hide_the_refusal(self, wrap: Any) -> None:
        """An object that cannot even be shown is refused like any other."""

        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError("no repr")

        refusal(wrap(Broken()))

    def test_what_is_refused_is_left_as_it_was(self) -> None:
        """Neither storing nor refusing changes the caller's values."""
        values = {"a": [1, (2,)], "b": {3: {4}}, "c": object()}
        copy = dict(values)
        with pytest.raises(SerializationError):
            json_.dumps(values)
        assert values == copy


# -- bytes that are not ours -------------------------------------------------------------

CORRUPT = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"5",
    b'{"a":1',
    b'{"a":1}}',
    b"{'a':1}",
    b"\xff\xfe",
    b"\x80\x04}\x94.",
    b'{"a":{"~":"nosuch","v":1}}',
    b'{"a":{"~":"tuple"}}',
    b'{"a":{"~":["tuple"],"v":[]}}',
    b'{"a":{"~":null,"v":[]}}',
    b'{"a":{"~":"bytes","v":5}}',
    b'{"a":{"~":"bytes","v":"a"}}',
    b'{"a":{"~":"set","v":[[]]}}',
    b'{"a":{"~":"dict","v":[[1]]}}',
    b'{"a":{"~":"dict","v":[[[],1]]}}',
    b'{"a":{"~":"uuid","v":"x"}}',
    b'{"a":{"~":"decimal","v":"x"}}',
    b'{"a":{"~":"date","v":"2024-02-30"}}',
    b'{"a":{"~":"datetime","v":["2024-01-01",7]}}',
    b'{"a":{"~":"timedelta","v":[1e999]}}',
    b'{"a":{"~":"timedelta","v":[1,2,3,4,5,6,7,8]}}',
    b'{"~":"tuple","v":[]}',
    b'{"a":' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


def read_or_refuse(data: bytes) -> None:
    """Read bytes; what comes is a dict, or an exception that says they are corrupt."""
    try:
        values = json_.loads(data)
    except Exception:
        return
    assert type(values) is dict


class TestCorruptBytes:
    @pytest.mark.parametrize("data", CORRUPT, ids=lambda data: repr(data[:40]))
    def test_raise(self, data: bytes) -> None:
        """Bytes that were not written here are an error, never a session."""
        with pytest.raises(Exception):  # noqa: B017
            json_.loads(data)

    @fuzz
    @given(st.binary() | st.text().map(str.encode))
    def test_raise_nothing_but_ordinary_exceptions(self, data: bytes) -> None:
        """Any bytes give a dict or an exception that can be caught as corruption."""
        read_or_refuse(data)

    @fuzz
    @given(SESSIONS, st.data())
    def test_of_which_one_is_changed(
        self, values: dict[str, Any], draw: st.DataObject
    ) -> None:
        """A byte changed, a piece cut out or doubled: a dict or an exception."""
        data = json_.dumps(values)
        first = draw.draw(st.integers(0, len(data)))
        last = draw.draw(st.integers(first, len(data)))
        piece = draw.draw(st.binary(max_size=3) | st.just(data[first:last] * 2))
        read_or_refuse(data[:first] + piece + data[last:])


SUNG: list[str] = []


def sing(song: str) -> None:
    """What a canary does when it is unpickled."""
    SUNG.append(song)


class Canary:
    def __reduce__(self) -> Any:
        return sing, ("tweet",)


class TestPitfallPickle:
    """pickle is never shipped, never a fallback; rack-session CVE-2026-39324."""

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_is_never_loaded(self, protocol: int) -> None:
        """Bytes of pickle are corrupt, and nothing in them is run."""
        for payload in ({"a": Canary()}, Canary(), {"a": uuid4()}):
            with pytest.raises(ValueError):
                json_.loads(pickle.dumps(payload, protocol))
        assert SUNG == []
        pickle.loads(pickle.dumps(Canary(), protocol))  # the control: it can sing
        assert SUNG.pop() == "tweet"
