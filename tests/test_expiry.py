"""Two clocks end a session, whatever the browser says, and each may ask for less."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgisession import Options, Session, SessionManager
from wsgisession._access import access_of
from wsgisession._core.expiry import Expiry, Meta, utc
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, CountingStore, reopened, stored
from .pages import set_cookies, shop

fuzz = settings(deadline=None, database=None)

NOW = 1_800_000_000.0
DAY = 86400.0
OPTIONS = Options(idle_timeout=1000, absolute_timeout=5000, touch_interval=60)
ENDLESS = Options(absolute_timeout=None)
MOMENT = datetime(2027, 1, 15, 8, 0, tzinfo=timezone.utc)


def finish(session: Session) -> None:
    """What the middleware does when the request is over."""
    access = access_of(session)
    access.commit()
    access.close()


# -- the rules ---------------------------------------------------------------------------


class TestWhatOneMayAskFor:
    """``set_expiry`` has Django's meanings."""

    @pytest.mark.parametrize(
        ("asked", "expiry"),
        [
            (None, Expiry()),
            (0, Expiry(at_browser_close=True)),
            (300, Expiry(idle=300, at_browser_close=False)),
            (-1, Expiry(idle=-1, at_browser_close=False)),
            (MOMENT, Expiry(until=MOMENT.timestamp(), at_browser_close=False)),
            (timedelta(hours=1), Expiry(until=NOW + 3600, at_browser_close=False)),
            (timedelta(0), Expiry(until=NOW, at_browser_close=False)),
        ],
        ids=repr,
    )
    def test_a_table(self, asked: Any, expiry: Expiry) -> None:
        """Seconds of inactivity, a moment, a span from now, the browser, the default."""
        assert Expiry.of(asked, now=NOW) == expiry

    def test_an_aware_moment_is_the_same_in_any_zone(self) -> None:
        """A moment is a moment, whatever clock it was read from."""
        elsewhere = MOMENT.astimezone(timezone(timedelta(hours=-7)))
        assert Expiry.of(elsewhere, now=NOW) == Expiry.of(MOMENT, now=NOW)

    def test_a_naive_moment_is_local_time(self) -> None:
        """As everywhere in Python, a naive datetime is the wall clock's."""
        naive = datetime(2027, 1, 15, 8, 0)
        asked = Expiry.of(naive, now=NOW)
        assert asked.until == time.mktime(naive.timetuple())

    @pytest.mark.parametrize(
        "asked",
        [True, False, 1.5, "30m", "300", [3], date(2027, 1, 1), object],
        ids=repr,
    )
    def test_anything_else_is_refused(self, asked: Any) -> None:
        """A flag, a fraction or text is an error that names what is taken."""
        with pytest.raises(TypeError, match="takes seconds as an int, a datetime, a"):
            SessionManager(MemoryStore()).create().set_expiry(asked)


class TestDeadline:
    @pytest.mark.parametrize(
        ("expiry", "accessed", "deadline"),
        [
            (Expiry(), 0, 1000),
            (Expiry(), 500, 1500),
            (Expiry(), 4500, 5000),
            (Expiry(), 9999, 5000),
            (Expiry(idle=10), 500, 510),
            (Expiry(idle=3000), 500, 3500),
            (Expiry(idle=99999), 500, 5000),
            (Expiry(idle=-1), 500, 499),
            (Expiry(until=NOW + 700), 500, 700),
            (Expiry(until=NOW + 99999), 500, 5000),
            (Expiry(until=NOW - 1), 500, -1),
            (Expiry(at_browser_close=True), 500, 1500),
        ],
        ids=repr,
    )
    def test_a_table(self, expiry: Expiry, accessed: float, deadline: float) -> None:
        """The earlier of both clocks, in seconds since the session began."""
        meta = Meta(NOW, NOW, expiry=expiry)
        assert meta.deadline(OPTIONS, NOW + accessed) == NOW + deadline

    @fuzz
    @given(
        st.none() | st.floats(-1e6, 1e9),
        st.none() | st.floats(0, 1e11),
        st.floats(0, 1e10),
        st.floats(0, 1e7),
    )
    def test_nothing_outlives_the_absolute_timeout(
        self, idle: float | None, until: float | None, created: float, used: float
    ) -> None:
        """Whatever was asked for and however often it is used (OWASP ASVS 7.3.2)."""
        meta = Meta(created, created, expiry=Expiry(idle=idle, until=until))
        assert OPTIONS.absolute_timeout is not None
        deadline = meta.deadline(OPTIONS, created + used)
        assert deadline <= created + OPTIONS.absolute_timeout


class TestTouch:
    @pytest.mark.parametrize(
        ("expiry", "options", "seconds"),
        [
            (Expiry(), OPTIONS, 60),
            (Expiry(), Options(idle_timeout=100), 10),
            (Expiry(), Options(touch_interval="1h"), 3600),
            (Expiry(idle=50), OPTIONS, 5),
            (Expiry(idle=3000), OPTIONS, 60),
        ],
        ids=repr,
    )
    def test_a_table(self, expiry: Expiry, options: Options, seconds: float) -> None:
        """Late by the interval, or by a tenth of an idle timeout that is short."""
        meta = Meta(NOW - 900, NOW, expiry=expiry)
        assert not meta.touch_is_due(options, NOW + seconds - 0.01)
        assert meta.touch_is_due(options, NOW + seconds)

    @pytest.mark.parametrize(
        ("expiry", "options"),
        [
            (Expiry(until=NOW), OPTIONS),
            (Expiry(), Options(touch_interval=None)),
            (Expiry(idle=1), Options(touch_interval=None)),
        ],
    )
    def test_what_never_moves(self, expiry: Expiry, options: Options) -> None:
        """A fixed moment, and any clock where reading is no activity."""
        assert not Meta(NOW, NOW, expiry=expiry).touch_is_due(options, NOW + 1e9)

    @pytest.mark.parametrize("idle", [1, 10, 59, 60, 600, 1e6])
    def test_a_session_in_use_does_not_expire(self, idle: float) -> None:
        """A late clock costs at most a tenth of the idle time that was promised."""
        options = Options(idle_timeout=idle, touch_interval=3600)
        assert Meta(NOW, NOW).touch_is_due(options, NOW + idle / 10 + 0.01)


class TestMaxAge:
    """The cookie lives as long as the session can; the idle clock is the server's."""

    @pytest.mark.parametrize(
        ("expiry", "options", "seconds"),
        [
            (Expiry(), OPTIONS, 5000),
            (Expiry(idle=10), OPTIONS, 5000),
            (Expiry(until=NOW + 700), OPTIONS, 700),
            (Expiry(until=NOW + 9999), OPTIONS, 5000),
            (Expiry(until=NOW + 0.3), OPTIONS, 1),  # 0 would take it away
            (Expiry(at_browser_close=True), OPTIONS, None),
            (Expiry(), ENDLESS, 400 * DAY),
            (Expiry(until=NOW + 1e9), ENDLESS, 400 * DAY),
            (Expiry(), Options(expire_at_browser_close=True), None),
            (
                Expiry(at_browser_close=False),
                Options(expire_at_browser_close=True),
                30 * DAY,
            ),
        ],
        ids=repr,
    )
    def test_a_table(
        self, expiry: Expiry, options: Options, seconds: float | None
    ) -> None:
        """Whole seconds until the absolute end; none until the browser closes."""
        age = Meta(NOW, NOW, expiry=expiry).max_age(options, NOW)
        assert age == seconds
        assert age is None or type(age) is int


class TestBrowserClose:
    @pytest.mark.parametrize("default", [True, False])
    @pytest.mark.parametrize(("asked", "closes"), [(0, True), (60, False)])
    def test_what_was_asked_for_wins(
        self, default: bool, asked: int, closes: bool
    ) -> None:
        """One session may differ from the option, either way, and None does not."""
        options = Options(expire_at_browser_close=default)
        for wish, expected in ((asked, closes), (None, default)):
            meta = Meta(NOW, NOW, expiry=Expiry.of(wish, now=NOW))
            assert meta.ends_with_browser(options) is expected


def test_times_are_aware() -> None:
    """Epoch seconds become aware UTC datetimes."""
    assert utc(MOMENT.timestamp()) == MOMENT
    assert utc(0).tzinfo is timezone.utc


# -- the clocks of the server ------------------------------------------------------------


@pytest.fixture
def manager(clock: Clock) -> SessionManager:
    return SessionManager(MemoryStore(), OPTIONS, clock=clock)


@pytest.fixture
def token(manager: SessionManager) -> str:
    return str(manager.token_of(stored(manager, a=1)))


def look(manager: SessionManager, token: str) -> bool:
    """One request that only looks; whether it found the session."""
    session = manager.open(token)
    found = "a" in session
    finish(session)
    return found


class TestTheClocksOfTheServer:
    """P9: what the browser says about expiry counts for nothing (RFC 6265bis)."""

    @pytest.mark.parametrize(("seconds", "alive"), [(999, True), (1000, False)])
    def test_idle_to_the_second(
        self,
        manager: SessionManager,
        token: str,
        clock: Clock,
        seconds: float,
        alive: bool,
    ) -> None:
        """One second before the idle timeout it is there, at the timeout it is over."""
        clock.pass_by(seconds)
        assert look(manager, token) is alive

    @pytest.mark.parametrize("method", ["look", "write"])
    def test_absolute_whatever_the_use(
        self, manager: SessionManager, token: str, clock: Clock, method: str
    ) -> None:
        """A session in use ends at its absolute timeout; a write makes it no younger."""
        began = manager.open(token).created
        for _ in range(49):
            clock.pass_by(100)
            session = manager.open(token)
            assert session["a"] == 1
            assert session.created == began
            if method == "write":
                session["n"] = clock()
            finish(session)
        clock.pass_by(99)
        assert look(manager, token)
        clock.pass_by(1)
        assert not look(manager, token)

    def test_options_made_stricter_hold_at_once(
        self, manager: SessionManager, token: str, clock: Clock
    ) -> None:
        """Records of before a change of the options obey the new ones."""
        stricter = SessionManager(manager.store, Options(idle_timeout=10), clock=clock)
        clock.pass_by(10)
        assert not look(stricter, token)
        assert look(manager, token)

    def test_where_reading_is_no_activity(self, clock: Clock) -> None:
        """``touch_interval=None``: only a save moves the clock, as in Django."""
        options = Options(idle_timeout=1000, touch_interval=None)
        manager = SessionManager(MemoryStore(), options, clock=clock)
        token = str(manager.token_of(stored(manager, a=1)))
        clock.pass_by(600)
        session = manager.open(token)
        session["n"] = 1
        finish(session)
        for alive in (True, True, False):
            clock.pass_by(400)
            assert look(manager, token) is alive

    def test_reads_move_the_idle_clock_once_in_an_interval(self, clock: Clock) -> None:
        """Within ``touch_interval`` a read writes nothing; past it, it touches once."""
        store = CountingStore(MemoryStore())
        manager = SessionManager(store, OPTIONS, clock=clock)
        token = str(manager.token_of(stored(manager, a=1)))
        for seconds, calls in ((59, ["load"]), (1, ["load", "touch"]), (1, ["load"])):
            store.calls.clear()
            clock.pass_by(seconds)
            assert look(manager, token)
            assert store.calls == calls

    def test_a_late_clock_is_moved_once(self, clock: Clock) -> None:
        """By the save in the middle of a request, and not by its end as well."""
        store = CountingStore(MemoryStore())
        manager = SessionManager(store, OPTIONS, clock=clock)
        session = stored(manager, n=1)
        began = session.last_accessed
        clock.pass_by(61)
        session["n"] = 2
        store.calls.clear()
        session.save()
        finish(session)
        assert store.calls == ["save"]
        moved = reopened(manager, session).last_accessed - began
        assert moved == timedelta(seconds=61)

    def test_the_idle_clock_of_a_new_session_begins_when_it_is_stored(
        self, clock: Clock
    ) -> None:
        """A first request that takes longer than the expiry it asks for is no end."""
        site = shop(clock=clock)

        def slow(session: Session) -> None:
            session["n"] = 1
            session.set_expiry(30)
            clock.pass_by(40)

        site.handlers["slow"] = slow
        assert site.get("read", site.begun("slow")).body == "1"

    def test_a_short_expiry_slides_in_use(
        self, manager: SessionManager, clock: Clock
    ) -> None:
        """A session of 30 s does not expire between touches a minute apart."""
        session = stored(manager, a=1)
        session.set_expiry(30)
        session.save()
        token = str(manager.token_of(session))
        for _ in range(10):
            clock.pass_by(20)
            assert look(manager, token)
        clock.pass_by(31)
        assert not look(manager, token)

    def test_a_moment_does_not_slide(
        self, manager: SessionManager, clock: Clock
    ) -> None:
        """A datetime is the end, whatever is done with the session until then."""
        session = stored(manager, a=1)
        end = datetime.fromtimestamp(clock() + 600, timezone.utc)
        session.set_expiry(end)
        session.save()
        clock.pass_by(599)
        session = reopened(manager, session)
        assert session.get_expiry_date() == end == session.expires
        session["n"] = 2
        session.save()
        token = str(manager.token_of(session))
        clock.pass_by(0.5)
        assert look(manager, token)
        clock.pass_by(1)
        assert not look(manager, token)

    def test_what_is_over_at_the_end_of_its_request_is_over(self, clock: Clock) -> None:
        """To the second, also where it was not over when it was looked at."""
        clock.now = float(int(clock.now))
        month = Options(idle_timeout="30d", absolute_timeout="30d")
        manager = SessionManager(MemoryStore(), month, clock=clock)
        session = stored(manager, n=1)
        clock.pass_by(30 * DAY - 1)
        session["n"] += 1
        clock.pass_by(1)
        finish(session)
        assert reopened(manager, session).new
        assert list(manager.sessions()) == []


class TestHostsWhoseClocksDiffer:
    """Clocks only go forward, so an hour logs nobody out."""

    def behind(
        self, manager: SessionManager, clock: Clock, seconds: float
    ) -> SessionManager:
        """The same store on a host whose clock is so far behind."""
        return SessionManager(manager.store, OPTIONS, clock=lambda: clock() - seconds)

    def test_pitfall_a_save_on_a_slow_host_ends_nothing(
        self, manager: SessionManager, token: str, clock: Clock
    ) -> None:
        """Its ``accessed`` lies before the one that is stored, and is not written."""
        used = manager.open(token).last_accessed
        session = self.behind(manager, clock, 3600).open(token)
        session["n"] = 1
        session.save()
        again = manager.open(token)
        assert again["n"] == 1
        assert again.last_accessed == used
        assert again.created <= again.last_accessed

    def test_a_touch_on_a_slow_host_moves_nothing_back(
        self, manager: SessionManager, token: str, clock: Clock
    ) -> None:
        """It is due there, and another host has done it by then."""
        clock.pass_by(170)
        slow = self.behind(manager, clock, 100).open(token)
        assert slow["a"] == 1
        assert look(manager, token)
        used = manager.open(token).last_accessed
        assert used.timestamp() == pytest.approx(clock())
        finish(slow)
        assert manager.open(token).last_accessed == used


def test_pitfall_a_touch_does_not_undo_a_shorter_expiry(
    manager: SessionManager, token: str, clock: Clock
) -> None:
    """A reader that loaded before ``set_expiry(60)`` touches a version that is gone."""
    clock.pass_by(70)
    reader = manager.open(token)
    assert reader["a"] == 1
    writer = manager.open(token)
    writer.set_expiry(60)
    writer.save()
    finish(reader)
    assert manager.open(token).get_expiry_age() == 60
    clock.pass_by(61)
    assert not look(manager, token)


# -- what is asked for, in whole requests ------------------------------------------------


@pytest.mark.parametrize(
    ("value", "age", "max_age"),
    [
        (300, 300, 30 * 86400),
        (timedelta(minutes=5), 300, 300),
        (0, 14 * 86400, None),
        (None, 14 * 86400, 30 * 86400),
        (90 * 86400, 30 * 86400, 30 * 86400),
    ],
)
def test_set_expiry_in_the_meanings_of_django(
    clock: Clock, value: Any, age: int, max_age: int | None
) -> None:
    """Seconds of inactivity, a moment, the browser's close, or the default."""
    site = shop(clock=clock)
    site.handlers.update(
        first=lambda s: (s.update(n=1), s.set_expiry(60)),
        then=lambda s: s.set_expiry(value),
    )
    cookie = site.begun("first")
    answer = site.post("then", cookie)
    session = site.manager.open(cookie)
    assert session.get_expiry_age() == age
    assert session.get_expire_at_browser_close() is (max_age is None)
    (line,) = set_cookies(answer)
    assert answer.cookie == cookie
    assert ("Max-Age" in line) is (max_age is not None)
    assert max_age is None or f"Max-Age={max_age};" in line


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("value", [-1, timedelta(0)])
def test_an_expiry_in_the_past_ends_it(clock: Clock, method: str, value: Any) -> None:
    """Set to be over, it is over: the record and the cookie go."""
    site = shop(clock=clock)
    site.handlers["over"] = lambda s: s.set_expiry(value)
    cookie = site.begun("fill")
    assert site.ask(method, "over", cookie).cookie == ""
    assert list(site.manager.sessions()) == []
    assert site.manager.open(cookie).new


def test_an_expiry_alone_is_not_worth_storing(clock: Clock) -> None:
    """A visitor without values gets no session for it."""
    site = shop(clock=clock)
    assert site.post("expiry").cookie is None
    assert list(site.manager.sessions()) == []


def test_the_expiry_of_other_moments(clock: Clock) -> None:
    """Modification and expiry may be given, as in Django."""
    clock.now = float(int(clock.now))
    manager = SessionManager(MemoryStore(), clock=clock)
    session = stored(manager, n=1)
    before = datetime.fromtimestamp(clock() - 100, timezone.utc)
    minute = timedelta(seconds=60)
    assert session.get_expiry_age(expiry=60) == 60
    assert session.get_expiry_date(modification=before, expiry=60) == before + minute
    assert session.get_expiry_age(modification=before, expiry=60) == 60
    assert session.get_expiry_age(modification=before, expiry=minute) == 60
    later = session.created + timedelta(days=20)
    assert session.get_expiry_age(modification=later) == 10 * 86400
    session.set_expiry(60)
    assert session.get_expiry_age(expiry=None) == 14 * 86400
