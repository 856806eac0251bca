"""Clocks that a test has stopped: freezegun and time-machine move all of ours."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from wsgisession import SessionManager

from ..conftest import SECRET
from ..pages import PAGES
from ..tabs import Site

freezegun = pytest.importorskip("freezegun")
time_machine = pytest.importorskip("time_machine")

NOON = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.timezone.utc)
MINUTE = datetime.timedelta(minutes=1)

Move = Callable[[datetime.datetime], AbstractContextManager[Any]]

MOVES: dict[str, Move] = {
    "freezegun": lambda moment: freezegun.freeze_time(moment),
    "time-machine": lambda moment: time_machine.travel(moment, tick=False),
}


def config(kind: str, folder: Path) -> dict[str, Any]:
    return {
        "memory": {"type": "memory"},
        "file": {"data_dir": str(folder / "sessions")},
        "sqlite": {"url": f"sqlite:///{folder}/sessions.db"},
        "cookie": {"type": "cookie", "secret": SECRET},
    }[kind]


@pytest.mark.promise("P9")
@pytest.mark.parametrize("kind", ["memory", "file", "sqlite", "cookie"])
@pytest.mark.parametrize("tool", MOVES)
def test_a_session_lives_by_the_clock_of_the_test(
    tool: str, kind: str, tmp_path: Path
) -> None:
    """Idle and absolute end, and the idle clock that a use moves."""
    move = MOVES[tool]
    with move(NOON):
        manager = SessionManager.from_config(
            config(kind, tmp_path), idle_timeout="30m", absolute_timeout="2h"
        )
        site = Site(manager, **PAGES)
        cookie = site.begun("increment")
    for minutes, body in ((29, "1"), (58, "2"), (87, "3"), (116, "4"), (121, "None")):
        with move(NOON + minutes * MINUTE):
            assert site.get("read", cookie).body == body
            if body != "None":
                answer = site.post("increment", cookie)
                cookie = answer.cookie or cookie  # a session in a cookie is sent anew
    with move(NOON):
        cookie = site.begun("increment")
    with move(NOON + 31 * MINUTE):
        assert site.get("read", cookie).body == "None"
    if kind == "sqlite":
        manager.store.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["memory", "file", "sqlite"])
@pytest.mark.parametrize("tool", MOVES)
def test_a_lease_ends_by_the_clock_of_the_test(
    tool: str, kind: str, tmp_path: Path
) -> None:
    """Who holds a lock too long has lost it, and others go on."""
    move = MOVES[tool]
    with move(NOON):
        manager = SessionManager.from_config(config(kind, tmp_path), lock_lease="30s")
        site = Site(manager, **PAGES)
        cookie = site.begun("increment")
        held = manager.open(cookie, locking=True)
        assert held["n"] == 1
        free = manager.open(cookie)
        with pytest.raises(Exception, match="gave up on the lock"):
            free.lock(wait=0)
    with move(NOON + MINUTE):
        assert site.post("increment", cookie).body == "2"
    if kind == "sqlite":
        manager.store.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("tool", MOVES)
def test_a_moment_from_a_stopped_clock_can_be_stored(tool: str) -> None:
    """Freezegun's datetime is a class of its own; it comes back as Python's."""
    manager = SessionManager.from_config(type="memory")
    with MOVES[tool](NOON):
        moment = datetime.datetime.now(datetime.timezone.utc)
        today = datetime.date.today()
        session = manager.create()
        session.update(at=moment, on=today, naive=datetime.datetime.now())
        session.save()
        (there,) = manager.sessions()
        assert there["at"] == moment
        (record,) = manager.store.records()  # type: ignore[union-attr]
    found = manager.repository.codec.values(record.data)
    assert found["at"] == NOON
    assert type(found["at"]) is datetime.datetime
    assert (found["on"], type(found["on"])) == (today, datetime.date)
    assert type(found["naive"]) is datetime.datetime
