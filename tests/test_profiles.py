"""Profiles are presets that may only be tightened, by options and by sessions."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from wsgisession import ConfigurationError, Options, SessionManager
from wsgisession.stores.memory import MemoryStore

from .conftest import Clock, Visitor, stored

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

# NIST SP 800-63B-4, 2.1.3, 2.2.3 and 2.3.3: idle, absolute.
LIMITS: dict[str, tuple[float, float]] = {
    "nist-aal1": (14 * DAY, 30 * DAY),
    "nist-aal2": (1 * HOUR, 24 * HOUR),
    "nist-aal3": (15 * MINUTE, 12 * HOUR),
}


@pytest.mark.parametrize("profile", LIMITS)
def test_a_profile_sets_both_timeouts_and_the_cookie(profile: Any) -> None:
    """What is not given is as the rule allows at most."""
    options = Options(profile=profile)
    assert (options.idle_timeout, options.absolute_timeout) == LIMITS[profile]
    cookie = options.cookie_secure, options.cookie_httponly, options.cookie_samesite
    assert cookie == (True, True, "Lax")


@pytest.mark.parametrize("profile", LIMITS)
def test_what_is_given_beside_it_may_be_stricter(profile: Any) -> None:
    """Also where one timeout is cut to the other."""
    options = Options(
        profile=profile,
        idle_timeout="5m",
        absolute_timeout="1h",
        cookie_samesite="Strict",
        cookie_name="__Host-sid",
    )
    assert (options.idle_timeout, options.absolute_timeout) == (300, 3600)
    assert Options(profile=profile, absolute_timeout="10m").idle_timeout == 600


@pytest.mark.parametrize(
    ("profile", "given", "said"),
    [
        (
            "nist-aal1",
            {"absolute_timeout": "31d"},
            "absolute_timeout is above the 25920",
        ),
        ("nist-aal2", {"absolute_timeout": "25h"}, "above the 86400 seconds"),
        ("nist-aal2", {"absolute_timeout": None}, "above the 86400 seconds"),
        ("nist-aal2", {"idle_timeout": "2h"}, "idle_timeout is above the 3600 seconds"),
        ("nist-aal3", {"idle_timeout": "16m"}, "idle_timeout is above the 900 seconds"),
        ("nist-aal3", {"absolute_timeout": "13h"}, "above the 43200 seconds"),
        ("nist-aal1", {"cookie_secure": "auto"}, "cookie_secure='auto' is looser"),
        ("nist-aal1", {"cookie_secure": False}, "it must be True, or left out"),
        ("nist-aal2", {"cookie_httponly": False}, "cookie_httponly=False is looser"),
        (
            "nist-aal2",
            {"cookie_samesite": "None"},
            "must be 'Lax' or 'Strict', or left",
        ),
        ("nist-aal2", {"cookie_samesite": False}, "cookie_samesite=False is looser"),
    ],
    ids=repr,
)
def test_what_is_looser_is_refused(
    profile: Any, given: dict[str, Any], said: str
) -> None:
    """The sentence names the limit and the profile."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        Options(profile=profile, **given)
    assert profile in str(caught.value)


@pytest.mark.parametrize("asked", [2 * HOUR, timedelta(hours=10)], ids=repr)
def test_a_session_cannot_ask_for_more_idle_time(clock: Clock, asked: Any) -> None:
    """Under AAL2 an hour without a request ends it, whatever ``set_expiry`` said."""
    options = Options(profile="nist-aal2", touch_interval=60)
    manager = SessionManager(MemoryStore(), options, clock=clock)
    session = manager.create()
    session["n"] = 1
    session.set_expiry(int(asked) if isinstance(asked, float) else asked)
    session.save()
    token = str(manager.token_of(session))
    assert session.get_expiry_age() == HOUR
    clock.pass_by(HOUR - 1)
    assert manager.open(token)["n"] == 1
    clock.pass_by(2)
    assert manager.open(token).new


def test_use_keeps_a_session_with_a_fixed_end_alive(clock: Clock) -> None:
    """Where a moment was asked for, the idle clock of the profile still runs."""
    manager = SessionManager(MemoryStore(), Options(profile="nist-aal2"), clock=clock)
    visitor = Visitor(
        manager,
        {
            "/start": lambda session: session.set_expiry(timedelta(hours=3)) or 1,
            "/fill": lambda session: session.update(n=1),
            "/read": lambda session: session.get("n"),
        },
        extra_environ={"wsgi.url_scheme": "https", "HTTP_HOST": "localhost"},
    )
    visitor.post("/fill")
    visitor.post("/start")
    for _ in range(3):
        clock.pass_by(0.9 * HOUR)
        assert visitor.get("/read").text == "1"
    clock.pass_by(0.5 * HOUR)
    assert visitor.get("/read").text == "None"


def test_without_a_profile_a_session_may_ask_for_more(clock: Clock) -> None:
    """As in Django, up to the absolute end."""
    manager = SessionManager(MemoryStore(), Options(idle_timeout=60), clock=clock)
    session = stored(manager, n=1)
    session.set_expiry(3600)
    assert session.get_expiry_age() == 3600


@pytest.mark.parametrize(
    ("asked", "is_cut"),
    [(60, False), (100 * 86400, True), (timedelta(days=31), True), (None, False)],
    ids=repr,
)
def test_an_expiry_beyond_the_absolute_end_is_cut_and_told_once(
    clock: Clock, caplog: pytest.LogCaptureFixture, asked: Any, is_cut: bool
) -> None:
    """Not at every request: once, with the limit and the option."""
    manager = SessionManager(MemoryStore(), clock=clock)
    for _ in range(3):
        session = stored(manager, n=1)
        session.set_expiry(asked)
        assert session.get_expiry_age() <= 30 * DAY
    said = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == is_cut
    assert all("absolute_timeout is 2592000" in each.getMessage() for each in said)


def test_a_slow_beginning_is_no_reason_to_warn(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A week of inactivity may be asked for on the day before the absolute end."""
    manager = SessionManager(MemoryStore(), clock=clock)
    session = manager.create()
    session.save()
    token = str(manager.token_of(session))
    for _ in range(29):
        clock.pass_by(DAY)
        manager.open(token, locking=True).save()
    session = manager.open(token)
    session.set_expiry(7 * 86400)
    assert session.get_expiry_age() == DAY
    assert not caplog.records
