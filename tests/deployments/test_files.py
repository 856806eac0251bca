"""Folders as they are found: full, read-only, on a volume, beside a stopped process.

What is special to one call of the system is in ``stores/test_file.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("filelock")

from wsgisession import Options, SessionManager
from wsgisession.errors import LockTimeout, StoreError
from wsgisession.stores.file import FileStore
from wsgisession.testing import key, newer, record, stored

from ..conftest import Clock, Visitor
from .situations import (
    HANDLERS,
    fill,
    is_not_ended,
    reads_and_does_not_write,
    remount,
    writes_again,
)

ROOM = "2m"
"""All stripes and folders, and a few sessions."""


@pytest.fixture
def disk_size() -> str:
    return ROOM


# -- disks that read and do not write ----------------------------------------------------


@pytest.mark.promise("P8")
def test_a_full_disk(small_disk: Path, clock: Clock) -> None:
    """Who only reads is served, and a logout works: there is always room for less."""
    folder = small_disk / "sessions"
    store = FileStore(folder)
    leaver = Visitor(SessionManager(store, clock=clock), HANDLERS)
    leaver.post("/write")
    (left,) = store.records()
    visitor = reads_and_does_not_write(
        store, clock, lambda: fill(small_disk), place=str(folder)
    )
    leaver.post("/logout", status=200)
    assert store.load(key(left)) is None
    (small_disk / "filling").unlink()
    writes_again(visitor, store, clock)


@pytest.mark.promise("P8")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_restart_where_nothing_can_be_written(
    small_disk: Path, clock: Clock, how: str
) -> None:
    """A new process serves who only reads, and makes nothing for that."""
    folder = small_disk / "sessions"
    store, given = FileStore(folder), record()
    store.save(given, expect=0)
    if how == "full":
        fill(small_disk)
    else:
        remount(small_disk, "ro")
    again = FileStore(folder)
    assert again.load(key(given)) == stored(given)
    assert list(again.records()) == [stored(given)]
    with pytest.raises(StoreError, match=f"{folder} failed"):
        again.save(record("new"), expect=0)


@pytest.mark.promise("P8")
def test_a_read_only_mount(small_disk: Path, clock: Clock) -> None:
    """Who only reads is served; nothing can be ended, and nobody is told that it was."""
    store = FileStore(small_disk / "sessions")
    visitor = reads_and_does_not_write(
        store, clock, lambda: remount(small_disk, "ro"), place=str(small_disk)
    )
    is_not_ended(visitor)
    assert list(FileStore(small_disk / "sessions").records()) == list(store.records())
    remount(small_disk, "rw")
    writes_again(visitor, store, clock)


# -- a process that stands still ---------------------------------------------------------

INSIDE = """
import sys, time
from wsgisession.stores.file import FileStore
store = FileStore(sys.argv[1])
with store._leases.stripe(sys.argv[2]):
    print("inside", flush=True)
    time.sleep(60)
"""


@contextmanager
def stopped_inside(folder: Path, id: str) -> Iterator[None]:
    """A process that was stopped while it held the lock file of a session."""
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, str(folder), id],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"inside\n"
        process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def took(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.mark.promise("P8")
@pytest.mark.promise("P11")
def test_a_process_that_was_stopped_inside_a_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers and logouts give up, readers are served, and all goes on after its end."""
    monkeypatch.setattr("wsgisession.stores.file._leases.PATIENCE", 1.0)
    folder = tmp_path / "sessions"
    store = FileStore(folder)
    visitor = Visitor(
        SessionManager(store, Options(lock_wait=1, touch_interval=0.001)), HANDLERS
    )
    visitor.post("/write")
    (given,) = store.records()
    with stopped_inside(folder, given.id):
        assert visitor.get("/read", status=200).text == "1"  # its touch is given up
        assert took(lambda: visitor.post("/write", status=503)) < 30
        assert took(lambda: visitor.post("/logout", status=503)) < 30
        with pytest.raises(LockTimeout):
            store.lock(key(given), wait=0, lease=30, waiters=0)
        with pytest.raises(StoreError, match="does not go on; was it stopped"):
            store.delete(key(given))
        other = record("other")  # in another lock file
        store.save(other, expect=0)
        store.save(newer(other), expect=other.version)
    assert visitor.get("/read").text == "1"
    visitor.post("/logout", status=200)
    assert store.load(key(given)) is None


# -- volumes -----------------------------------------------------------------------------


def test_a_volume_that_is_opened_to_its_group_at_every_mount(tmp_path: Path) -> None:
    """As Kubernetes' fsGroup does it, to every folder and file: the store goes on."""
    folder = tmp_path / "sessions"
    store, given = FileStore(folder), record(user="ann")
    store.save(given, expect=0)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o2770 if path.is_dir() else 0o660)
    again = FileStore(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert list(again.records(user="ann")) == [stored(given)]
    again.save(newer(given), expect=given.version)
