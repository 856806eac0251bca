"""The file store: the contract, and what only files can get wrong."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsgisession.errors import ConfigurationError, Conflict, LockTimeout, StoreError
from wsgisession.record import Key, Record
from wsgisession.stores import _disk
from wsgisession.stores import file as module
from wsgisession.stores.file import FileStore
from wsgisession.testing import (
    BlindStore,
    IterableStoreSuite,
    LockingStoreSuite,
    key,
    record,
    stored,
)

SPAWN = multiprocessing.get_context("spawn")
LEASE, AT_ONCE = 60, 15
"""Seconds of a lease that does not run out in a test, and of what happens long before."""
needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the system cannot fork"
)
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can do this"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return FileStore(folder)


class TestFileStore(LockingStoreSuite, IterableStoreSuite):
    @pytest.fixture
    def store(self, folder: Path) -> FileStore:
        return FileStore(folder)

    @pytest.fixture
    def twin(self, store: FileStore, folder: Path) -> FileStore:
        return FileStore(folder)

    @pytest.fixture
    def crowded(self, folder: Path) -> FileStore:
        return FileStore(folder, lock_waiters=2)


def file_of(folder: Path, given: Record) -> Path:
    return folder / "records" / given.id[:2] / given.id[2] / given.id


def lock_file_of(folder: Path, given: Record) -> Path:
    return folder / "locks" / given.id[:3]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def drafts(folder: Path) -> list[Path]:
    return [path for path in files(folder) if path.suffix == ".tmp"]


def eventually(true: Callable[[], bool]) -> None:
    """Wait until something is true, also on a busy machine."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def may_lock(store: FileStore, given: Record, *, wait: float = 0.3) -> bool:
    try:
        return store.lock(key(given), wait=wait, lease=30) is not None
    except LockTimeout:
        return False


# -- what lies in the folder -----------------------------------------------------------


class TestFolder:
    def test_nobody_else_may_look(self, folder: Path) -> None:
        """Folders are 0700 and files 0600, whatever the umask."""
        before = os.umask(0)
        try:
            store = FileStore(folder, durability="fsync")
            given = record(user="ann")
            store.save(given, expect=0)
            assert store.lock(key(given), wait=1, lease=30)
        finally:
            os.umask(before)
        for path in [folder, *folder.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path

    def test_names_and_contents_do_not_tell_the_token(self, folder: Path) -> None:
        """Not one file has the token or the user in its name, or the token inside."""
        store = FileStore(folder)
        given = record(user="ann@example.org")
        store.save(given, expect=0)
        store.lock(key(given), wait=1, lease=30)
        assert given.token is not None
        for path in files(folder):
            assert given.token.encode() not in path.read_bytes()
            assert given.token not in str(path)
            assert "ann@example.org" not in str(path)

    @pytest.mark.parametrize("id", ["A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
    def test_only_ids_are_names(self, store: FileStore, folder: Path, id: str) -> None:
        """What is not 64 lowercase hexadecimal digits is unknown, and never a file."""
        before = files(folder)
        assert store.load(Key(id)) is None
        assert store.lock(Key(id), wait=1, lease=30) is None
        given = record(id=id)
        for refused in (store.touch, store.delete):
            with pytest.raises(StoreError):
                refused(given)
        with pytest.raises(StoreError):
            store.save(given, expect=0)
        assert files(folder) == before

    def test_what_is_unknown_leaves_no_file(
        self, store: FileStore, folder: Path
    ) -> None:
        """Looking for sessions that do not exist, also to lock them, costs no inode."""
        for number in range(50):
            nobody = record(f"nobody {number}")
            assert store.load(key(nobody)) is None
            assert store.lock(key(nobody), wait=1, lease=30) is None
        assert files(folder) == []

    def test_lock_files_are_few_and_stay(self, store: FileStore, folder: Path) -> None:
        """They are named by three digits, and nothing unlinks them."""
        first = record("0")
        for number in range(300):
            given = record(str(number))
            store.save(given, expect=0)
            mine = store.lock(key(given), wait=1, lease=30)
            assert mine is not None
            if number == 0:
                inode = lock_file_of(folder, first).stat().st_ino
            store.save(replace(mine, version=2, expires=time.time()), expect=1)
            if number % 3 == 0:
                store.delete(given)
        while store.delete_expired(batch=100):
            pass
        names = {path.name for path in (folder / "locks").iterdir()}
        assert names == {record(str(number)).id[:3] for number in range(300)}
        assert lock_file_of(folder, first).stat().st_ino == inode

    def test_a_markers_folder_goes_with_the_last_marker(
        self, store: FileStore, folder: Path
    ) -> None:
        """What was of a user leaves nothing behind under users/."""
        given = record(user="ann")
        store.save(given, expect=0)
        assert len(files(folder / "users")) == 1
        store.save(replace(given, version=2, user=None), expect=1)
        assert files(folder / "users") == []
        store.save(replace(given, version=3, user="bob"), expect=2)
        store.delete(given)
        assert [len(list(path.iterdir())) for path in folder.glob("users/*")] == [0, 0]

    def test_a_marker_is_never_trusted(self, store: FileStore, folder: Path) -> None:
        """One that a crash left is found out and removed, and lists nothing."""
        given = record(user="ann")
        store.save(given, expect=0)
        (marker,) = files(folder / "users")
        store.save(replace(given, version=2, user="bob"), expect=1)
        marker.parent.mkdir(exist_ok=True)
        marker.touch()
        (marker.parent / record("gone").id).touch()
        assert list(store.records(user="ann")) == []
        assert [each.id for each in store.records(user="bob")] == [given.id]
        assert not marker.exists()


class TestRefusal:
    def test_a_link(self, tmp_path: Path) -> None:
        """A link may be pointed elsewhere tomorrow, with a slash behind it or not."""
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to("real")
        (tmp_path / "dangling").symlink_to("nowhere")
        for name in ("link", "link/", "dangling"):
            with pytest.raises(ConfigurationError, match="symbolic link; give"):
                FileStore(f"{tmp_path}/{name}")
        assert not (tmp_path / "nowhere").exists()

    def test_a_file(self, tmp_path: Path) -> None:
        """A file is no folder."""
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="not a folder"):
            FileStore(tmp_path / "file")
        with pytest.raises(ConfigurationError, match="cannot be made"):
            FileStore(tmp_path / "file" / "below")

    @pytest.mark.parametrize("mode", [0o701, 0o710, 0o740, 0o777, 0o1777])
    def test_open_to_others(self, tmp_path: Path, mode: int) -> None:
        """Whoever can read the folder can read everybody's session."""
        tmp_path.chmod(mode)
        with pytest.raises(ConfigurationError, match="chmod 700"):
            FileStore(tmp_path)

    @needs_root
    def test_somebody_elses(self, tmp_path: Path) -> None:
        """The owner of a folder can open it again."""
        tmp_path.chmod(0o700)
        os.chown(tmp_path, 12345, -1)
        with pytest.raises(ConfigurationError, match=r"belongs to the user .* 12345"):
            FileStore(tmp_path)

    def test_options(self, tmp_path: Path) -> None:
        """What an option may be is said when it is something else."""
        with pytest.raises(ConfigurationError, match='"replace" or "fsync"'):
            FileStore(tmp_path / "a", durability="always")
        with pytest.raises(ConfigurationError, match="0 or more"):
            FileStore(tmp_path / "a", lock_waiters=-1)
        assert not (tmp_path / "a").exists()


MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / /srv rw,relatime shared:7 master:2 - nfs4 host:/export rw,vers=4.2
41 40 0:41 / /srv/local rw,relatime - xfs /dev/vdb rw
42 27 0:42 / /mnt/two\040words rw - fuse.sshfs user@host: rw
43 27 0:43 / /over rw - ext4 /dev/vdc rw
44 43 0:44 / /over rw - cifs //host/share rw
"""


class TestNetworkFileSystem:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/var/lib/app", "ext4"),
            ("/srv/app", "nfs4"),
            ("/srv", "nfs4"),
            ("/srv/local/app", "xfs"),
            ("/srv/locally", "nfs4"),
            ("/srv2", "ext4"),
            ("/mnt/two words/app", "fuse.sshfs"),
            ("/over/app", "cifs"),
        ],
    )
    def test_the_longest_and_latest_mount_counts(self, path: str, kind: str) -> None:
        """As in the mount table of Linux, blanks in names included."""
        assert _disk.file_system(path, MOUNTS) == kind

    @pytest.mark.parametrize(
        "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"]
    )
    def test_is_warned_of(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """The store works there, for one host."""
        if not Path("/proc/self/mountinfo").exists():
            pytest.skip("the system does not tell its mounts")
        monkeypatch.setattr(_disk, "file_system", lambda path, mounts: kind)
        with pytest.warns(UserWarning, match="locks do not exclude") as caught:
            FileStore(folder)
        assert caught[0].filename == __file__

    @pytest.mark.parametrize(
        "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"]
    )
    def test_a_local_one_is_not(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """Warnings are errors in these tests."""
        monkeypatch.setattr(_disk, "file_system", lambda path, mounts: kind)
        FileStore(folder)


class TestLinks:
    """Whoever plants a link gets nothing read or written through it."""

    def test_in_the_place_of_a_record(self, store: FileStore, folder: Path) -> None:
        """Not even a good record is read behind a link."""
        given = record()
        store.save(given, expect=0)
        path = file_of(folder, given)
        target = folder.parent / "target"
        path.rename(target)
        path.symlink_to(target)
        before = target.read_bytes()
        with pytest.raises(StoreError):
            store.load(key(given))
        with pytest.raises(StoreError):
            store.save(replace(given, version=2, data=b"new"), expect=1)
        assert target.read_bytes() == before

    def test_in_the_place_of_a_lock(self, store: FileStore, folder: Path) -> None:
        """Nothing is locked, made or written behind a link."""
        given = record()
        target = folder.parent / "target"
        lock_file_of(folder, given).symlink_to(target)
        with pytest.raises(StoreError):
            store.save(given, expect=0)
        assert not target.exists()

    @pytest.mark.parametrize("plant", [os.symlink, os.link])
    def test_in_the_place_of_a_draft(
        self,
        store: FileStore,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        plant: Callable[[Path, Path], None],
    ) -> None:
        """Should somebody guess the name of a draft, the save fails and no more."""
        given = record()
        store.save(given, expect=0)
        monkeypatch.setattr(_disk, "token_hex", lambda octets: "guessed")
        target = folder.parent / "target"
        target.write_bytes(b"mine")
        path = file_of(folder, given)
        plant(target, path.with_name(f"{path.name}.guessed.tmp"))
        with pytest.raises(StoreError):
            store.save(replace(given, version=2, data=b"new"), expect=1)
        assert target.read_bytes() == b"mine"
        assert store.load(key(given)) == stored(given)


# -- broken disks ----------------------------------------------------------------------


class TestCorruption:
    """A record that is not whole is absent, logged, and kept."""

    @pytest.fixture
    def given(self, store: FileStore) -> Record:
        given = record(user="ann", data=b"the secret\nof ann" * 3)
        store.save(given, expect=0)
        return given

    def damages(self, content: bytes) -> Iterator[bytes]:
        """Cut, zeroed, grown, mixed up, and every octet with one bit turned."""
        for length in {*range(0, len(content), 7), len(content) - 1}:
            yield content[:length]
            yield content[:length] + bytes(len(content) - length)
        yield content + b"\0"
        yield content * 2
        for place in range(len(content)):
            turned = bytearray(content)
            turned[place] ^= 1 << place % 8
            yield bytes(turned)

    def test_is_seen_at_every_place(
        self, store: FileStore, folder: Path, given: Record
    ) -> None:
        """Whichever octet is wrong or missing, there is no record."""
        path = file_of(folder, given)
        for content in self.damages(path.read_bytes()):
            path.write_bytes(content)
            assert store.load(key(given)) is None, content

    def test_is_left_alone(
        self,
        store: FileStore,
        folder: Path,
        given: Record,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """No method takes the bytes away, or fails for them; the log names the id."""
        path = file_of(folder, given)
        content = path.read_bytes()[:-1] + b"X"
        path.write_bytes(content)
        with caplog.at_level(logging.ERROR, "wsgisession"):
            assert store.load(key(given)) is None
        (message,) = caplog.messages
        assert given.id in message
        assert "secret" not in message
        assert "ann" not in message
        assert store.lock(key(given), wait=1, lease=30) is None
        store.touch(given)
        store.delete(given)
        with pytest.raises(Conflict) as caught:
            store.save(replace(given, version=2), expect=1)
        assert caught.value.record is None
        assert list(store.records()) == []
        assert list(store.records(user="ann")) == []
        assert store.delete_expired(batch=10) == 0
        assert path.read_bytes() == content

    def test_what_cannot_be_read_keeps_no_sweep_from_the_rest(
        self,
        store: FileStore,
        folder: Path,
        given: Record,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It is told by its name and left there; what has expired beside it goes."""
        path = file_of(folder, given)
        path.unlink()
        path.mkdir()
        past = time.time() - 1
        ids = [given.id[:3] + f"{number:061x}" for number in range(8)]
        for id in ids:
            store.save(record(id=id, expires=past), expect=0)
        assert store.delete_expired(batch=100) == len(ids)
        assert given.id in caplog.text
        assert store.delete_expired(batch=100) == 0
        assert path.is_dir()

    def test_is_kept_aside_from_a_new_record(
        self, store: FileStore, folder: Path, given: Record
    ) -> None:
        """A new record of that id does not overwrite what was there."""
        path = file_of(folder, given)
        path.write_bytes(b"torn")
        store.save(given, expect=0)
        assert store.load(key(given)) == stored(given)
        (aside,) = path.parent.glob("*.corrupt")
        assert aside.read_bytes() == b"torn"
        assert [each.id for each in store.records()] == [given.id]
        assert store.delete_expired(batch=10) == 0
        assert aside.read_bytes() == b"torn"

    def test_another_records_file_is_not_mine(
        self, store: FileStore, folder: Path, given: Record
    ) -> None:
        """A file that was copied to another id is nobody's session."""
        other = record("other")
        store.save(other, expect=0)
        shutil.copy(file_of(folder, given), file_of(folder, other))
        assert store.load(key(other)) is None

    def test_of_a_lock_file_locks_nobody_out(
        self, store: FileStore, folder: Path, given: Record
    ) -> None:
        """Torn leases are no leases; the version still decides."""
        for content in (b"\0" * 100, b"{", b"[]", b'{"x": 1}', b"\xff\xfe", b"1"):
            late = store.lock(key(given), wait=1, lease=30)
            assert late is not None
            lock_file_of(folder, given).write_bytes(content)
            mine = store.lock(key(given), wait=15, lease=30)
            assert mine is not None
            store.save(replace(mine, version=mine.version + 1), expect=mine.version)
            with pytest.raises(Conflict):
                store.save(replace(late, version=late.version + 1), expect=late.version)


class TestOutage:
    def test_a_disk_that_has_gone_is_no_logout(
        self, store: FileStore, folder: Path
    ) -> None:
        """Without its folder the store fails; it does not say that nobody is there."""
        given = record()
        store.save(given, expect=0)
        shutil.rmtree(folder)
        calls: list[Callable[[], Any]] = [
            lambda: store.load(key(given)),
            lambda: store.lock(key(given), wait=1, lease=30),
            lambda: store.save(given, expect=0),
            lambda: store.touch(given),
            lambda: store.delete(given),
            lambda: list(store.records()),
            lambda: list(store.records(user="ann")),
            lambda: store.delete_expired(batch=10),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                call()
        assert not folder.exists()

    @needs_root
    def test_a_full_disk(self, tmp_path: Path) -> None:
        """The save fails, readers go on, the old record is whole, no draft is left."""
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", tmp_path]
        )
        if mount.returncode:
            pytest.skip("not allowed to mount a small disk")
        try:
            folder = tmp_path / "sessions"
            store = FileStore(folder)
            given = record(data=b"x" * 60_000, user="ann")
            store.save(given, expect=0)
            with pytest.raises(StoreError) as caught:
                store.save(replace(given, version=2, data=b"y" * 300_000), expect=1)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.ENOSPC
            assert store.load(key(given)) == stored(given)
            assert drafts(folder) == []
            with suppress(OSError), open(tmp_path / "rest", "wb", 0) as rest:
                while rest.write(bytes(4096)):
                    pass
            assert store.load(key(given)) == stored(given)
            with pytest.raises(StoreError):
                store.save(record("new"), expect=0)
            with pytest.raises(StoreError):
                store.lock(key(given), wait=1, lease=30)
            assert drafts(folder) == []
            store.delete(given)
            assert store.load(key(given)) is None
        finally:
            # Lazily, for the store keeps its holder open.
            subprocess.run(["umount", "-l", tmp_path], check=True)

    def test_a_limit_on_files(self, store: FileStore, folder: Path) -> None:
        """The same where the system lets no file grow, and writes go short first."""
        given = record()
        store.save(given, expect=0)
        script = (
            "import resource, sys\n"
            "from dataclasses import replace\n"
            "from wsgisession.errors import StoreError\n"
            "from wsgisession.record import Key\n"
            "from wsgisession.stores.file import FileStore\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
            "store = FileStore(sys.argv[1])\n"
            "found = store.load(Key(sys.argv[2]))\n"
            "try:\n"
            "    store.save(replace(found, version=2, data=bytes(99_999)), expect=1)\n"
            "except StoreError as error:\n"
            "    print(type(error.__cause__.errno).__name__)\n"
        )
        pytest.importorskip("resource")
        done = subprocess.run(
            [sys.executable, "-c", script, folder, given.id],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "int\n"
        assert store.load(key(given)) == stored(given)
        assert drafts(folder) == []

    @pytest.mark.parametrize(
        "call",
        ["open", "read", "write", "close", "lseek", "ftruncate", "fsync", "replace"]
        + ["unlink", "mkdir", "rename", "rmdir", "lstat"],
    )
    def test_a_save_that_fails_anywhere_leaves_old_or_new(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """Each system call fails once; then the record is whole and the store works."""
        store = FileStore(folder, durability="fsync")
        given = old = record(user="ann", data=b"old" * 50)
        store.save(given, expect=0)
        fired, number = True, 0
        while fired:
            mine = store.lock(key(given), wait=1, lease=30)
            assert mine is not None
            old = stored(mine)
            user = "bob" if old.user == "ann" else "ann"
            new = replace(mine, version=old.version + 1, user=user, data=b"new" * 99)
            with failing(monkeypatch, call, number) as failed:
                try:
                    store.save(new, expect=old.version)
                except StoreError:
                    assert failed
                else:
                    assert not failed or call == "rmdir"
            fired = bool(failed)
            store.unlock(mine)
            found = store.load(key(given))
            assert found is not None
            assert found in (old, stored(new))
            assert list(store.records(user=found.user)) == [found]
            assert drafts(folder) == []
            number += 1

    @pytest.mark.parametrize("call", ["open", "read", "close", "write", "lseek"])
    def test_a_lock_that_fails_anywhere_can_be_had_again(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """A lock that was not given holds nobody off."""
        given = record()
        store.save(given, expect=0)
        fired, number = True, 0
        while fired:
            with failing(monkeypatch, call, number) as failed:
                try:
                    store.lock(key(given), wait=1, lease=0.2)
                except StoreError:
                    assert failed
            mine = store.lock(key(given), wait=15, lease=30)
            assert mine is not None
            store.unlock(mine)
            fired = bool(failed)
            number += 1
        assert number > 1


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> Iterator[list[int]]:
    """Let the call of that number fail; the list is empty if there was none."""
    real = getattr(os, call)
    count, failed = 0, []

    def fake(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == number + 1:
            failed.append(count)
            if call == "close":  # as a network file system does: closed, but not well
                real(*args)
            raise OSError(errno.EIO, "a test")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fake)
        yield failed


# -- several processes -----------------------------------------------------------------


def lock_and_sleep(folder: Path, given: Record, told: Any, fork: bool) -> None:
    """Take a lock, tell, and never let go; a forked child takes one of its own."""
    store = FileStore(folder)
    assert store.lock(key(given), wait=1, lease=LEASE)
    child = os.fork() if fork else None
    if child == 0:
        assert store.lock(key(record("of the child")), wait=1, lease=LEASE)
        child = os.getpid()
    if child is None or child == os.getpid():
        told.send(child)
    time.sleep(LEASE)


@contextmanager
def holder(folder: Path, given: Record, *, fork: bool = False) -> Iterator[Any]:
    """A process that holds the lock of a record; gives it, and its child's id."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=lock_and_sleep, args=(folder, given, there, fork))
    process.start()
    child = None
    try:
        assert here.poll(60)
        child = here.recv()
        yield process, child
    finally:
        process.kill()
        process.join()
        if child is not None:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def wait_in_line(folder: Path, given: Record) -> None:
    """Wait for a lock, again where somebody else happens to stand in the queue."""
    store = FileStore(folder, lock_waiters=1)
    while True:
        with suppress(LockTimeout):
            store.lock(key(given), wait=6, lease=30)


def increment(folder: Path, given: Record, blind: bool, times: int) -> None:
    """Four threads that count, in one process."""
    store = FileStore(folder)

    def run() -> None:
        for _ in range(times):
            held = (
                store.load(key(given))
                if blind
                else store.lock(key(given), wait=60, lease=60)
            )
            assert held is not None
            new = replace(
                held, data=b"%d" % (int(held.data) + 1), version=held.version + 1
            )
            target = BlindStore(store) if blind else store
            target.save(new, expect=held.version)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write_forever(folder: Path, given: Record, told: Any) -> None:
    store = FileStore(folder)
    told.send(None)
    while True:
        held = store.lock(key(given), wait=30, lease=30)
        assert held is not None
        version = held.version + 1
        store.save(
            replace(held, version=version, data=b"%d " % version * 20_000),
            expect=held.version,
        )


def version(store: FileStore, given: Record) -> int:
    loaded = store.load(key(given))
    assert loaded is not None
    return loaded.version


class TestProcesses:
    @pytest.mark.parametrize("blind", [False, True])
    def test_no_update_is_lost(
        self, store: FileStore, folder: Path, blind: bool
    ) -> None:
        """4 processes of 4 threads count to 800; with a blind store they do not."""
        given = record(data=b"0")
        store.save(given, expect=0)
        workers = [
            SPAWN.Process(target=increment, args=(folder, given, blind, 50))
            for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        loaded = store.load(key(given))
        assert loaded is not None
        if blind:
            assert int(loaded.data) < 800
        else:
            assert loaded.data == b"800"
            assert loaded.version == 801

    @pytest.mark.parametrize("how", ["lock", "save", "wait"])
    def test_a_killed_holder_holds_nobody_up(
        self, store: FileStore, folder: Path, how: str
    ) -> None:
        """The next one locks or saves at once, though the lease has long to go."""
        given = record()
        store.save(given, expect=0)
        late = replace(given, version=2)
        with holder(folder, given) as (process, _):
            assert not may_lock(store, given)
            with pytest.raises(Conflict):
                store.save(late, expect=1)
            with ThreadPoolExecutor(1) as pool:
                if how == "wait":
                    waiter = pool.submit(may_lock, store, given, wait=2 * AT_ONCE)
                    time.sleep(0.2)
                process.kill()
                process.join()
                began = time.monotonic()
                if how == "lock":
                    assert may_lock(store, given, wait=AT_ONCE)
                elif how == "save":
                    store.save(late, expect=1)
                else:
                    assert waiter.result()
                assert time.monotonic() - began < AT_ONCE

    @needs_fork
    def test_a_forked_child_holds_its_own_leases_only(
        self, store: FileStore, folder: Path
    ) -> None:
        """It does not keep its killed parent's, and keeps its own until it dies."""
        given, other = record(), record("of the child")
        store.save(given, expect=0)
        store.save(other, expect=0)
        with holder(folder, given, fork=True) as (process, child):
            assert not may_lock(store, given)
            assert not may_lock(store, other)
            process.kill()
            process.join()
            assert may_lock(store, given, wait=AT_ONCE)
            assert not may_lock(store, other)
            os.kill(child, signal.SIGKILL)
            assert may_lock(store, other, wait=AT_ONCE)

    def test_a_killed_waiter_leaves_the_queue(self, folder: Path) -> None:
        """It counts until its wait would have been over, and no longer."""
        store = FileStore(folder, lock_waiters=1)
        given = record()
        store.save(given, expect=0)
        mine = store.lock(key(given), wait=1, lease=LEASE)
        assert mine is not None

        def waiting() -> int | None:
            with pytest.raises(LockTimeout) as caught:
                store.lock(key(given), wait=0.05, lease=30)
            return caught.value.waiters

        process = SPAWN.Process(target=wait_in_line, args=(folder, given))
        process.start()
        try:
            eventually(lambda: waiting() == 1)
        finally:
            process.kill()
            process.join()
        assert waiting() == 1
        eventually(lambda: waiting() is None)
        store.unlock(mine)
        assert may_lock(store, given, wait=0)

    def test_a_killed_writer_leaves_a_whole_record(
        self, store: FileStore, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whenever the kill comes, the record is the old one or the new one."""
        given = record(data=b"1 " * 20_000)
        store.save(given, expect=0)
        for number in range(3):
            here, there = SPAWN.Pipe()
            process = SPAWN.Process(target=write_forever, args=(folder, given, there))
            process.start()
            assert here.poll(60)
            before = version(store, given)
            eventually(lambda before=before: version(store, given) > before + 1)
            time.sleep(0.05 + number / 100)
            process.kill()
            process.join()
            held = store.lock(key(given), wait=AT_ONCE, lease=30)
            assert held is not None
            assert held.data == b"%d " % held.version * 20_000
            store.unlock(held)
        assert caplog.messages == []


class TestLeases:
    def test_two_sessions_of_a_stripe(self, store: FileStore, folder: Path) -> None:
        """What shares a lock file shares no lease."""
        one, two = record(id="abc" + "1" * 61), record(id="abc" + "2" * 61)
        store.save(one, expect=0)
        store.save(two, expect=0)
        first = store.lock(key(one), wait=1, lease=30)
        second = store.lock(key(two), wait=1, lease=30)
        assert first is not None
        assert second is not None
        store.unlock(first)
        assert not may_lock(store, two)
        assert may_lock(store, one, wait=AT_ONCE)

    def test_nobody_cuts_in_on_who_waits(self, store: FileStore) -> None:
        """One that locks again and again lets the others have their turn."""
        given = record()
        store.save(given, expect=0)
        taken, done = threading.Event(), threading.Event()

        def hog() -> None:
            while not done.is_set():
                held = store.lock(key(given), wait=LEASE, lease=30)
                assert held is not None
                taken.set()
                time.sleep(0.01)
                store.unlock(held)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(hog)
            try:
                for _ in range(10):
                    taken.clear()
                    assert taken.wait(60)
                    held = store.lock(key(given), wait=AT_ONCE, lease=30)
                    assert held is not None
                    store.unlock(held)
            finally:
                done.set()

    def test_an_ended_lease_leaves_an_empty_file(
        self, store: FileStore, folder: Path
    ) -> None:
        """Lock files do not grow with the sessions that were ever locked."""
        given = record()
        store.save(given, expect=0)
        for end in (store.unlock, store.touch, store.delete):
            mine = store.lock(key(given), wait=1, lease=30)
            assert mine is not None
            assert lock_file_of(folder, given).stat().st_size > 0
            end(mine)
            assert lock_file_of(folder, given).stat().st_size == 0


# -- sweeping --------------------------------------------------------------------------


class TestSweep:
    def test_it_races_no_writer(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is renewed after the sweep looked and before it acts, stays."""
        given = record(expires=time.time() - 1)
        store.save(given, expect=0)
        again = replace(given, expires=time.time() + 60)
        look = module._expiry

        def look_and_renew(path: str) -> float:
            seen = look(path)
            store.save(again, expect=0)
            return seen

        monkeypatch.setattr(module, "_expiry", look_and_renew)
        assert store.delete_expired(batch=10) == 0
        assert store.load(key(given)) == stored(again)

    def test_small_batches_do_not_start_over(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cost of a sweep does not multiply by the number of batches."""
        past = time.time() - 1
        for number in range(60):
            store.save(record(f"old {number}", expires=past), expect=0)
            store.save(record(f"new {number}"), expect=0)
        look, looks = module._expiry, []

        def count(path: str) -> float:
            looks.append(path)
            return look(path)

        monkeypatch.setattr(module, "_expiry", count)
        calls = 1
        while store.delete_expired(batch=1):
            calls += 1
        assert calls == 61
        assert len(looks) < 120 + 60 + 30  # one round, a last one, and some again

    def test_what_comes_behind_it_is_found_later(self, store: FileStore) -> None:
        """A record added where the sweep has been is found in the next round."""
        past = time.time() - 1
        for digit in "37b":
            store.save(record(id=digit * 64, expires=past), expect=0)
        assert store.delete_expired(batch=2) == 2
        store.save(record(id="1" * 64, expires=past), expect=0)
        assert store.delete_expired(batch=5) == 2
        assert store.delete_expired(batch=5) == 0

    def test_a_very_long_user(self, store: FileStore) -> None:
        """Also a record whose header takes more than a page is swept, if expired."""
        live = record("live", user="\u4e2d" * 5000)
        store.save(live, expect=0)
        store.save(record(user="x" * 9000, expires=time.time() - 1), expect=0)
        assert store.delete_expired(batch=10) == 1
        assert store.load(key(live)) == stored(live)

    def test_what_crashes_left(self, store: FileStore, folder: Path) -> None:
        """Old drafts and the holders of the dead go; what is in use stays."""
        given = record()
        store.save(given, expect=0)
        assert store.lock(key(given), wait=1, lease=30)
        (mine,) = (folder / "holders").iterdir()
        (folder / "holders" / "dead").touch()
        path = file_of(folder, given)
        old, young = path.with_suffix(".1.tmp"), path.with_suffix(".2.tmp")
        for draft in (old, young):
            draft.touch()
        os.utime(old, (time.time() - 3700,) * 2)
        assert store.delete_expired(batch=10) == 0
        assert list((folder / "holders").iterdir()) == [mine]
        assert drafts(folder) == [young]
        assert not may_lock(FileStore(folder), given)


class TestDurability:
    def test_fsync_is_called_in_order(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """New folders, the contents, then the name; and the name that goes, too."""
        assert self.calls(folder, monkeypatch, "fsync") == {
            "save": ["mkdir", "fsync"] * 2 + ["fsync", "replace", "fsync"],
            "delete": ["unlink", "fsync"],
        }

    def test_replace_waits_for_no_disk(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By default nobody waits."""
        assert self.calls(folder, monkeypatch, "replace") == {
            "save": ["mkdir", "mkdir", "replace"],
            "delete": ["unlink"],
        }

    def calls(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, durability: str
    ) -> dict[str, list[str]]:
        store = FileStore(folder, durability=durability)
        seen: list[str] = []
        for name in ("fsync", "mkdir", "replace", "unlink"):
            real = getattr(os, name)

            def spy(*args: Any, name: str = name, real: Any = real) -> Any:
                seen.append(name)
                return real(*args)

            monkeypatch.setattr(os, name, spy)
        store.save(record(), expect=0)
        saved = seen.copy()
        seen.clear()
        store.delete(record())
        return {"save": saved, "delete": seen}
