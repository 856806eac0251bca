"""Two clocks end a session, whatever the browser says, and each may ask for less."""

from __future__ import annotations

import math
import time
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgisession import Options, SessionManager
from wsgisession.expiry import GRACE, TOMBSTONE, Expiry, utc
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock

fuzz = settings(deadline=None, database=None)

NOW = 1_800_000_000.0
DAY = 86400.0
OPTIONS = Options(idle_timeout=1000, absolute_timeout=5000, touch_interval=60)
MOMENT = datetime(2027, 1, 15, 8, 0, tzinfo=timezone.utc)


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
        "asked", [True, False, 1.5, "30m", date(2027, 1, 1), [], object()], ids=repr
    )
    def test_anything_else_is_refused(self, asked: Any) -> None:
        """A flag, a fraction or text is an error that names what is taken."""
        with pytest.raises(TypeError, match="takes seconds as an int, a datetime, a"):
            Expiry.of(asked, now=NOW)


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
        assert (
            expiry.deadline(OPTIONS, created=NOW, accessed=NOW + accessed)
            == NOW + deadline
        )

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
        deadline = Expiry(idle=idle, until=until).deadline(
            OPTIONS, created=created, accessed=created + used
        )
        assert deadline <= created + OPTIONS.absolute_timeout


class TestTouch:
    @pytest.mark.parametrize(
        ("expiry", "options", "seconds"),
        [
            (Expiry(), OPTIONS, 60),
            (Expiry(), Options(idle_timeout=100), 10),
            (Expiry(), Options(touch_interval=0), 0),
            (Expiry(), Options(touch_interval="1h"), 3600),
            (Expiry(idle=50), OPTIONS, 5),
            (Expiry(idle=3000), OPTIONS, 60),
            (Expiry(until=NOW), OPTIONS, math.inf),
        ],
        ids=repr,
    )
    def test_a_table(self, expiry: Expiry, options: Options, seconds: float) -> None:
        """The idle clock is late by the interval, by a tenth of a short timeout at most.

        A fixed moment never moves.
        """
        assert expiry.touch_after(options) == seconds

    @pytest.mark.parametrize("idle", [1, 10, 59, 60, 600, 1e6])
    def test_a_session_in_use_does_not_expire(self, idle: float) -> None:
        """A late clock costs at most a tenth of the idle time that was promised."""
        options = Options(idle_timeout=idle, touch_interval=3600)
        assert Expiry().touch_after(options) <= idle / 10


class TestBrowserClose:
    @pytest.mark.parametrize("default", [True, False])
    @pytest.mark.parametrize(("asked", "closes"), [(0, True), (60, False)])
    def test_what_was_asked_for_wins(
        self, default: bool, asked: int, closes: bool
    ) -> None:
        """One session may differ from the option, either way, and None does not."""
        options = Options(expire_at_browser_close=default)
        assert Expiry.of(asked, now=NOW).closes_with_browser(options) is closes
        assert Expiry.of(None, now=NOW).closes_with_browser(options) is default


def test_times_are_aware() -> None:
    """Epoch seconds become aware UTC datetimes."""
    assert utc(MOMENT.timestamp()) == MOMENT
    assert utc(0).tzinfo is timezone.utc


def test_the_old_token_s_last_minutes() -> None:
    """A tombstone outlasts a slow request; the grace of a rotation is short."""
    assert 30 <= TOMBSTONE <= 300
    assert 0 < GRACE <= 60


class TestTheClocksOfTheServer:
    """What the browser says about expiry counts for nothing (RFC 6265bis)."""

    @pytest.fixture
    def manager(self, clock: Clock) -> SessionManager:
        return SessionManager(MemoryStore(), OPTIONS, clock=clock)

    @pytest.fixture
    def token(self, manager: SessionManager) -> str:
        session = manager.create()
        session["a"] = 1
        session.save()
        assert session.token is not None
        return session.token

    def visit(self, manager: SessionManager, token: str) -> bool:
        """One request that only looks; whether it found the session."""
        session = manager.open(token)
        found = "a" in session
        session.commit()
        session.close()
        return found

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
        assert self.visit(manager, token) is alive

    def test_absolute_whatever_the_use(
        self, manager: SessionManager, token: str, clock: Clock
    ) -> None:
        """A session that is used every hundred seconds ends at its absolute timeout."""
        for _ in range(49):
            clock.pass_by(100)
            assert self.visit(manager, token)
        clock.pass_by(99)
        assert self.visit(manager, token)
        clock.pass_by(1)
        assert not self.visit(manager, token)

    def test_options_made_stricter_hold_at_once(
        self, manager: SessionManager, token: str, clock: Clock
    ) -> None:
        """Records of before a change of the options obey the new ones."""
        stricter = SessionManager(manager.store, Options(idle_timeout=10), clock=clock)
        clock.pass_by(10)
        assert not self.visit(stricter, token)
        assert self.visit(manager, token)
