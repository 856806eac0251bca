"""The file store: the contract, and what only files can get wrong."""

from __future__ import annotations

import errno
import fcntl
import json
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
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from wsgisession.errors import (
    ConfigurationError,
    LockTimeout,
    StoreError,
    VersionConflict,
)
from wsgisession.record import Key, Record, Replaced
from wsgisession.stores.file import FileStore
from wsgisession.stores.file import _disk as disk
from wsgisession.stores.file import _folder as folders
from wsgisession.stores.file import _leases as leases
from wsgisession.stores.file import _store as module
from wsgisession.testing import (
    IterableStoreSuite,
    LockingStoreSuite,
    StoreSuite,
    in_threads,
    key,
    newer,
    proof,
    record,
    refused,
    stored,
)
from wsgisession.testing._blind import BlindStore

from ..conftest import missing

SPAWN = multiprocessing.get_context("spawn")
LEASE, AT_ONCE, WAITERS = 60, 15, 50
"""Seconds of a lease that does not run out in a test, and of what happens long before."""
LONG_AGO = 1_000_000_000.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


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


class TestDurableFileStore(StoreSuite):
    @pytest.fixture
    def store(self, folder: Path) -> FileStore:
        return FileStore(folder, durability="fsync")


def file_of(folder: Path, given: Record) -> Path:
    return folder / "records" / given.id[:2] / given.id


def stripe_of(folder: Path, given: Record) -> Path:
    return folder / "locks" / given.id[:2]


def files(folder: Path) -> list[Path]:
    """All that is there, but for the lock files."""
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir() and path.parent.name != "locks"
    )


def drafts(folder: Path) -> list[Path]:
    return [path for path in files(folder) if path.suffix == ".tmp"]


def markers(folder: Path) -> list[Path]:
    return files(folder / "users")


def holders(folder: Path) -> list[Path]:
    return files(folder / "holders")


def age(path: Path) -> None:
    """Make a file one that was last written years ago."""
    os.utime(path, (LONG_AGO, LONG_AGO))


def is_young(path: Path) -> bool:
    return path.stat().st_mtime > time.time() - 1800


def eventually(true: Callable[[], bool]) -> None:
    """Wait until something is true, also on a busy machine."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def locked(
    store: FileStore, given: Record, *, wait: float = AT_ONCE, lease: float = LEASE
) -> Record:
    """Lock where a lease is due."""
    held = store.lock(key(given), wait=wait, lease=lease, waiters=WAITERS)
    assert held is not None
    assert held.lease is not None
    return held


def may_lock(store: FileStore, given: Record, *, wait: float = 0.3) -> bool:
    try:
        locked(store, given, wait=wait)
    except LockTimeout:
        return False
    return True


# -- what lies in the folder -----------------------------------------------------------


class TestFolder:
    def test_nobody_else_may_look(self, folder: Path) -> None:
        """Folders are 0700 and files 0600, whatever the umask."""
        before = os.umask(0)
        try:
            store = FileStore(folder, durability="fsync")
            given = record(user="ann")
            store.save(given, expect=0)
            store.save(newer(given), expect=given.version)
            locked(store, given)
        finally:
            os.umask(before)
        for path in [folder, *folder.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path

    def test_the_header_is_json_with_whole_words(
        self, store: FileStore, folder: Path
    ) -> None:
        """A person who looks at a record sees all but the data in its first line."""
        given = record(
            user="ann", seen=5.5, replaced=(Replaced(proof("a"), None),), data=b"x\ny"
        )
        store.save(given, expect=0)
        line, _, data = file_of(folder, given).read_bytes().partition(b"\n")
        magic, _, header = line.split(b" ", 2)
        assert magic == b"wsgisession-record-2"
        assert data == given.data
        assert json.loads(header) == {
            "id": given.id,
            "version": given.version,
            "created": given.created,
            "accessed": given.accessed,
            "expires": given.expires,
            "user": "ann",
            "proof": given.proof,
            "turned": given.turned,
            "seen": 5.5,
            "replaced": [[proof("a"), None]],
        }

    def test_no_name_tells_a_user_or_a_token(
        self, store: FileStore, folder: Path
    ) -> None:
        """Not one file has the user in its name, or the token in name or content."""
        given = record(user="ann@example.org", token="a-token-of-ann")
        store.save(given, expect=0)
        locked(store, given)
        for path in files(folder):
            assert b"a-token-of-ann" not in path.read_bytes()
            assert "a-token-of-ann" not in str(path)
            assert "ann@example.org" not in str(path)

    @pytest.mark.parametrize("id", ["A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n"])
    def test_only_ids_are_names(self, store: FileStore, folder: Path, id: str) -> None:
        """What is not 32 lowercase hexadecimal digits is unknown, and never a file."""
        before = sorted(folder.rglob("*"))
        given = record(id=id)
        assert store.load(key(given)) is None
        assert store.lock(key(given), wait=1, lease=30, waiters=0) is None
        assert store.touch(given) is False
        assert store.delete(key(given)) is False
        store.unlock(given._replace(lease="some"))
        with pytest.raises(StoreError, match="32 hexadecimal digits"):
            store.save(given, expect=0)
        assert sorted(folder.rglob("*")) == before

    def test_what_is_unknown_leaves_no_file(
        self, store: FileStore, folder: Path
    ) -> None:
        """Looking for sessions that do not exist, also to lock them, costs no inode."""
        before = sorted(folder.rglob("*"))
        for number in range(50):
            nobody = record(f"nobody {number}")
            assert store.load(key(nobody)) is None
            assert store.lock(key(nobody), wait=1, lease=30, waiters=0) is None
            assert store.delete(key(nobody)) is False
            assert store.touch(nobody) is False
        assert sorted(folder.rglob("*")) == before
        assert all(path.stat().st_size == 0 for path in (folder / "locks").iterdir())

    def test_lock_files_are_few_and_stay(self, store: FileStore, folder: Path) -> None:
        """They are named by two digits, and nothing unlinks them."""
        before = {path: path.stat().st_ino for path in (folder / "locks").iterdir()}
        assert len(before) == 256
        for number in range(100):
            given = record(str(number))
            store.save(given, expect=0)
            mine = locked(store, given)
            store.save(newer(mine, expires=time.time()), expect=given.version)
            if number % 3 == 0:
                store.delete(key(given))
        while store.delete_expired(batch=100):
            pass
        after = {path: path.stat().st_ino for path in (folder / "locks").iterdir()}
        assert after == before

    def test_workers_may_open_it_at_once(self, folder: Path) -> None:
        """As all workers of a server do when it starts for the first time."""
        stores = in_threads(8, lambda number: FileStore(folder))
        for number, store in enumerate(stores):
            given = record(str(number))
            store.save(given, expect=0)
            assert stores[0].load(key(given)) == stored(given)

    def test_a_store_that_is_opened_again_makes_nothing(
        self, store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that a folder on a disk that became read-only can still be read."""
        given = record()
        store.save(given, expect=0)
        monkeypatch.setattr(os, "mkdir", None)
        monkeypatch.setattr(disk.Disk, "create", None)
        assert FileStore(folder).load(key(given)) == stored(given)


class TestMarkers:
    """The empty files that tell which sessions a user has."""

    def test_a_markers_folder_goes_with_the_last_marker(
        self, store: FileStore, folder: Path
    ) -> None:
        """What was of a user leaves nothing behind under users/."""
        given = record(user="ann")
        store.save(given, expect=0)
        assert len(markers(folder)) == 1
        nobodys = newer(given, user=None)
        store.save(nobodys, expect=given.version)
        assert markers(folder) == []
        bobs = newer(given, user="bob")
        store.save(bobs, expect=nobodys.version)
        store.delete(key(given))
        assert [len(list(path.iterdir())) for path in folder.glob("users/*")] == [0, 0]

    def test_a_marker_goes_with_an_expired_record(
        self, store: FileStore, folder: Path
    ) -> None:
        """The sweep takes both."""
        store.save(record(user="ann", expires=time.time() - 1), expect=0)
        assert len(markers(folder)) == 1
        assert store.delete_expired(batch=10) == 1
        assert markers(folder) == []

    def test_a_listing_removes_no_marker(self, store: FileStore, folder: Path) -> None:
        """One whose record does not match now may be of a login that is under way."""
        given = record(user="ann")
        store.save(given, expect=0)
        (marker,) = markers(folder)
        store.save(newer(given, user="bob"), expect=given.version)
        marker.parent.mkdir(exist_ok=True)
        gone = marker.parent / record("gone").id
        for each in (marker, gone):
            each.touch()
        assert list(store.records(user="ann")) == []
        assert [each.id for each in store.records(user="bob")] == [given.id]
        assert store.delete_expired(batch=10) == 0
        assert marker.exists()
        assert gone.exists()

    def test_a_marker_that_a_crash_left_goes_by_its_time(
        self, store: FileStore, folder: Path
    ) -> None:
        """The sweep removes it when it is old, and none whose record is there."""
        given, live = record(user="ann"), record("live", user="ann")
        store.save(given, expect=0)
        (marker,) = markers(folder)
        store.save(newer(given, user="bob"), expect=given.version)
        store.save(live, expect=0)
        left = [marker, marker.parent / record("gone").id]
        for each in left:
            each.touch()
        for each in markers(folder):
            age(each)
        assert store.delete_expired(batch=10) == 0
        assert [each.exists() for each in left] == [False, False]
        assert [each.id for each in store.records(user="ann")] == [live.id]
        assert [each.id for each in store.records(user="bob")] == [given.id]

    def test_a_refused_login_leaves_the_users_marker(
        self, store: FileStore, folder: Path
    ) -> None:
        """Of two that begin a session of one id for one user, the first is listed."""
        given = record(user="ann")
        store.save(given, expect=0)
        refused(store, newer(given), expect=0)
        refused(store, newer(given, user="bob"), expect=0)
        assert [each.id for each in store.records(user="ann")] == [given.id]


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

    @pytest.mark.parametrize("mode", [0o701, 0o710, 0o740, 0o777, 0o2770])
    @pytest.mark.parametrize("is_new", [True, False])
    def test_open_to_others(
        self, folder: Path, mode: int, is_new: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is ours to close, as after every mount by Kubernetes' fsGroup: and told."""
        if is_new:
            folder.mkdir()
        else:
            FileStore(folder)
        folder.chmod(mode)
        FileStore(folder)
        assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o700
        (said,) = caplog.messages
        assert f"was open to other users (mode {mode:04o})" in said
        FileStore(folder)
        assert len(caplog.messages) == 1

    @pytest.mark.parametrize("mode", [0o755, 0o2775, 0o1777])
    def test_open_because_it_holds_other_things(
        self, tmp_path: Path, mode: int
    ) -> None:
        """Closing it would break what is in there, so nobody is told to."""
        (tmp_path / "site").mkdir()
        tmp_path.chmod(mode)
        with pytest.raises(ConfigurationError, match="new folder inside it") as caught:
            FileStore(tmp_path)
        assert "chmod" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["site"]

    def test_a_folder_that_users_share(self, folder: Path) -> None:
        """A sticky one is nobody's own, though it is empty."""
        folder.mkdir()
        folder.chmod(0o1777)
        with pytest.raises(ConfigurationError, match="new folder inside it") as caught:
            FileStore(folder)
        assert "chmod" not in str(caught.value)

    @pytest.mark.parametrize(
        "path", ["/", "//", "/etc", "/srv/", "/tmp", "/var/lib", "/var/tmp/../tmp"]
    )
    def test_a_folder_of_the_system(self, path: str) -> None:
        """The root and its like get a sentence of their own, and no chmod."""
        with pytest.raises(ConfigurationError, match="folder of the system") as caught:
            FileStore(path)
        assert "chmod" not in str(caught.value)

    @needs_root
    def test_a_folder_of_another_user(self, tmp_path: Path) -> None:
        """The owner of a folder can open it again."""
        tmp_path.chmod(0o700)
        os.chown(tmp_path, 12345, -1)
        with pytest.raises(ConfigurationError, match=r"belongs to the user .* 12345"):
            FileStore(tmp_path)
        with pytest.raises(ConfigurationError, match="new folder inside it") as caught:
            FileStore(tmp_path)
        assert "chmod" not in str(caught.value)

    @pytest.mark.parametrize("path", ["", None, 3, "a\0b"])
    def test_no_path(self, path: Any) -> None:
        """Above all not the current folder by mistake."""
        with pytest.raises(ConfigurationError, match="data_dir="):
            FileStore(path)

    def test_options(self, folder: Path) -> None:
        """What an option may be is said when it is something else."""
        with pytest.raises(ConfigurationError, match='"replace" or "fsync"'):
            FileStore(folder, durability="always")  # type: ignore[arg-type]
        assert not folder.exists()


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
        assert folders.file_system(path, MOUNTS) == kind

    @pytest.mark.parametrize(
        "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"]
    )
    def test_is_warned_of(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """The store works there, for one host."""
        if not Path("/proc/self/mountinfo").exists():
            pytest.skip("the system does not tell its mounts")
        monkeypatch.setattr(folders, "file_system", lambda path, mounts: kind)
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
        monkeypatch.setattr(folders, "file_system", lambda path, mounts: kind)
        FileStore(folder)


class TestLinks:
    """A user who plants a link gets nothing read or written through it."""

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
        for expect in (0, given.version):
            with pytest.raises(StoreError):
                store.save(newer(given, data=b"new"), expect=expect)
        assert target.read_bytes() == before

    def test_in_the_place_of_a_lock(self, store: FileStore, folder: Path) -> None:
        """Nothing is locked, made or written behind a link."""
        given = record()
        target = folder.parent / "target"
        stripe_of(folder, given).unlink()
        stripe_of(folder, given).symlink_to(target)
        with pytest.raises(StoreError):
            store.save(given, expect=given.version)
        assert not target.exists()

    @pytest.mark.parametrize("plant", [os.symlink, os.link])
    def test_in_the_place_of_a_draft(
        self,
        store: FileStore,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        plant: Callable[[Path, Path], None],
    ) -> None:
        """Should the name of a draft be guessed, the save fails and no more."""
        given = record()
        store.save(given, expect=0)
        monkeypatch.setattr(disk, "token_hex", lambda octets: "guessed")
        target = folder.parent / "target"
        target.write_bytes(b"mine")
        path = file_of(folder, given)
        plant(target, path.with_name(f"{path.name}.guessed.tmp"))
        for expect in (0, given.version):
            with pytest.raises(StoreError):
                store.save(newer(given, data=b"new"), expect=expect)
        assert target.read_bytes() == b"mine"
        assert store.load(key(given)) == stored(given)


class TestInsert:
    """A new record takes no lock, and never a place that is taken."""

    def test_only_one_of_many_wins(self, store: FileStore, folder: Path) -> None:
        """Whether they take the lock, as for a user, or not."""
        twin = FileStore(folder)
        for number in range(30):
            given = record(str(number))

            def insert(worker: int, given: Record = given) -> bool:
                user = "ann" if worker % 4 > 1 else None
                mine = newer(given, data=b"%d" % worker, user=user)
                try:
                    (store, twin)[worker % 2].save(mine, expect=0)
                except VersionConflict:
                    return False
                return True

            won = in_threads(8, insert)
            loaded = store.load(key(given))
            assert loaded is not None
            assert won.count(True) == 1
            assert won[int(loaded.data)]
        assert drafts(folder) == []

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
    def test_where_there_are_no_hard_links(
        self,
        store: FileStore,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        """Another way is found, which takes no place that is taken either."""

        def link(*args: Any) -> None:
            raise OSError(number, "a test")

        monkeypatch.setattr(os, "link", link)
        given = record()
        store.save(given, expect=0)
        conflict = refused(store, newer(given), expect=0)
        assert conflict.record == stored(given) == store.load(key(given))
        assert files(folder) == [file_of(folder, given)]


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
            if place == content.index(b"2 "):
                continue  # the number of the format: see TestFormats
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
        assert store.lock(key(given), wait=1, lease=30, waiters=0) is None
        assert store.touch(given) is False
        assert store.delete(key(given)) is False
        assert refused(store, newer(given), expect=given.version).record is None
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
        ids = [given.id[:2] + f"{number:030x}" for number in range(8)]
        for id in ids:
            store.save(record(id=id, expires=past), expect=0)
        assert store.delete_expired(batch=100) == len(ids)
        assert given.id in caplog.text
        assert store.delete_expired(batch=100) == 0
        assert path.is_dir()

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_is_kept_aside_from_a_new_record(
        self, store: FileStore, folder: Path, given: Record, user: str | None
    ) -> None:
        """A new record of that id does not overwrite what was there."""
        path = file_of(folder, given)
        path.write_bytes(b"torn")
        again = given._replace(user=user)
        store.save(again, expect=0)
        assert store.load(key(given)) == stored(again)
        (aside,) = path.parent.glob("*.corrupt")
        assert aside.read_bytes() == b"torn"
        assert [each.id for each in store.records()] == [given.id]
        assert store.delete_expired(batch=10) == 0
        assert aside.read_bytes() == b"torn"

    def test_a_file_of_another_session_is_no_record(
        self, store: FileStore, folder: Path, given: Record
    ) -> None:
        """One that was copied to another id is nobody's session."""
        other = record("other")
        store.save(other, expect=0)
        shutil.copy(file_of(folder, given), file_of(folder, other))
        assert store.load(key(other)) is None

    @pytest.mark.parametrize(
        "content",
        [b"\0" * 100, b"{", b"[]", b'{"x": 1}', b"\xff\xfe", b"1", b'{"x":[1,2,3,4]}'],
    )
    def test_of_a_lock_file_locks_nobody_out(
        self, store: FileStore, folder: Path, given: Record, content: bytes
    ) -> None:
        """Torn leases are no leases; the version still decides."""
        late = locked(store, given)
        stripe_of(folder, given).write_bytes(content)
        mine = locked(store, given)
        store.save(newer(mine), expect=mine.version)
        refused(store, newer(late), expect=late.version)


class TestFormats:
    """What an older or a newer edition of this library has written."""

    @pytest.fixture
    def given(self, store: FileStore) -> Record:
        given = record(user="ann", expires=time.time() - 1)
        store.save(given, expect=0)
        return given

    @pytest.mark.parametrize("major", [b"3", b"12"])
    def test_a_newer_major_one_is_an_outage(
        self, store: FileStore, folder: Path, given: Record, major: bytes
    ) -> None:
        """Not a logout: the record is good, and this library cannot read it."""
        path = file_of(folder, given)
        path.write_bytes(path.read_bytes().replace(b"-2 ", b"-%b " % major, 1))
        before = path.read_bytes()
        calls: list[Callable[[], Any]] = [
            lambda: store.load(key(given)),
            lambda: store.lock(key(given), wait=1, lease=30, waiters=0),
            lambda: store.save(newer(given, user=None), expect=0),
            lambda: store.save(newer(given), expect=given.version),
            lambda: store.touch(given),
            lambda: store.delete(key(given)),
            lambda: list(store.records()),
            lambda: list(store.records(user="ann")),
        ]
        for call in calls:
            with pytest.raises(StoreError, match=f"has format {major.decode()}"):
                call()
        assert store.delete_expired(batch=10) == 0
        assert path.read_bytes() == before

    def test_an_older_major_one_is_absent_and_kept(
        self,
        store: FileStore,
        folder: Path,
        given: Record,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As any file that cannot be read, and the log tells."""
        path = file_of(folder, given)
        path.write_bytes(path.read_bytes().replace(b"-2 ", b"-1 ", 1))
        assert store.load(key(given)) is None
        assert given.id in caplog.text
        assert store.delete_expired(batch=10) == 0
        assert path.exists()

    def test_a_field_that_a_newer_minor_one_added_is_left_out(
        self, store: FileStore, folder: Path, given: Record
    ) -> None:
        """The rest of the record is read."""
        given = newer(given, id="0" * 32, expires=time.time() + 60)
        store.save(given, expect=0)
        path = file_of(folder, given)
        magic, _, body = path.read_bytes().split(b" ", 2)
        body = body.replace(b'{"id"', b'{"device":"phone","id"', 1)
        path.write_bytes(b"%s %08x %s" % (magic, crc32(body), body))
        assert store.load(key(given)) == stored(given)


class TestOutage:
    @pytest.mark.parametrize("what", ["sessions", "sessions/records"])
    def test_a_disk_that_has_gone_is_no_logout(
        self, store: FileStore, folder: Path, what: str
    ) -> None:
        """Without its folder the store fails; it does not say that nobody is there."""
        given = record()
        store.save(given, expect=0)
        shutil.rmtree(folder.parent / what)
        calls: list[Callable[[], Any]] = [
            lambda: store.load(key(given)),
            lambda: store.lock(key(given), wait=1, lease=30, waiters=0),
            lambda: store.save(given, expect=0),
            lambda: store.save(given._replace(user="ann"), expect=0),
            lambda: store.save(given, expect=given.version),
            lambda: store.touch(given),
            lambda: store.delete(key(given)),
            lambda: list(store.records()),
            lambda: list(store.records(user="ann")),
            lambda: store.delete_expired(batch=10),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                call()
        assert not (folder / "records").exists()

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
                store.save(newer(given, data=b"y" * 300_000), expect=given.version)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.ENOSPC
            assert store.load(key(given)) == stored(given)
            assert drafts(folder) == []
            with suppress(OSError), open(tmp_path / "rest", "wb", 0) as rest:
                while rest.write(bytes(4096)):
                    pass
            assert store.load(key(given)) == stored(given)
            for user in (None, "bob"):
                with pytest.raises(StoreError):
                    store.save(record("new", user=user), expect=0)
            with pytest.raises(StoreError):
                store.lock(key(given), wait=1, lease=30, waiters=0)
            assert store.load(key(record("new"))) is None
            assert drafts(folder) == []
            store.delete(key(given))
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
            "from wsgisession.errors import StoreError\n"
            "from wsgisession.record import Key\n"
            "from wsgisession.stores.file import FileStore\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
            "store = FileStore(sys.argv[1])\n"
            "found = store.load(Key(sys.argv[2]))\n"
            "try:\n"
            "    big = found._replace(version=2, data=bytes(99_999))\n"
            "    store.save(big, expect=found.version)\n"
            "except StoreError as error:\n"
            "    print(type(error.__cause__.errno).__name__)\n"
        )
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
        ["open", "read", "pwrite", "close", "fstat", "utime", "fsync", "replace"]
        + ["unlink", "mkdir", "rmdir", "lstat"],
    )
    def test_a_save_that_fails_anywhere_leaves_old_or_new(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """Each system call fails once; then the record is whole and the store works."""
        store = FileStore(folder, durability="fsync")
        given = record(user="ann", data=b"old" * 50)
        store.save(given, expect=0)
        fired, number = True, 0
        while fired:
            mine = locked(store, given)
            age(stripe_of(folder, given))
            old = stored(mine)
            user = "bob" if old.user == "ann" else "ann"
            new = newer(mine, user=user, data=b"new" * 99)
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

    @pytest.mark.parametrize(
        "call", ["open", "pwrite", "close", "link", "fsync", "unlink"]
    )
    def test_an_insert_that_fails_anywhere_leaves_nothing_torn(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """Each system call fails once; then there is a whole record or none."""
        store = FileStore(folder, durability="fsync")
        fired, number = True, 0
        while fired:
            given = record(str(number))
            with failing(monkeypatch, call, number) as failed:
                try:
                    store.save(given, expect=0)
                except StoreError:
                    assert failed
                else:
                    assert not failed or call == "unlink"
            fired = bool(failed)
            assert store.load(key(given)) in (None, stored(given))
            assert drafts(folder) == [] or call == "unlink"  # a sweep takes it
            number += 1
        assert number > 1

    @pytest.mark.parametrize("call", ["open", "read", "close", "pwrite", "fstat"])
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
                    store.lock(key(given), wait=1, lease=0.2, waiters=0)
                except StoreError:
                    assert failed
            store.unlock(locked(store, given))
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


def lock_and_sleep(folder: Path, given: list[Record], told: Any, fork: bool) -> None:
    """Take locks, tell, and never let go; a forked child takes one of its own."""
    store = FileStore(folder)
    for each in given:
        locked(store, each)
    child = os.fork() if fork else None
    if child == 0:
        locked(store, record("of the child"))
        child = os.getpid()
    if child is None or child == os.getpid():
        told.send(child)
    time.sleep(LEASE)


@contextmanager
def holder(folder: Path, *given: Record, fork: bool = False) -> Iterator[Any]:
    """A process that holds the lock of records; gives it, and its child's id."""
    here, there = SPAWN.Pipe()
    told = (folder, list(given), there, fork)
    process = SPAWN.Process(target=lock_and_sleep, args=told)
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
    """Wait for a lock, again where another one happens to stand in the queue."""
    store = FileStore(folder)
    while True:
        with suppress(LockTimeout):
            store.lock(key(given), wait=6, lease=30, waiters=1)


def increment(folder: Path, given: Record, blind: bool, times: int) -> None:
    """Four threads that count, in one process."""
    store = FileStore(folder)

    def run(_: int) -> None:
        for _ in range(times):
            held = store.load(key(given)) if blind else locked(store, given, wait=60)
            assert held is not None
            target = BlindStore(store) if blind else store
            target.save(
                newer(held, data=b"%d" % (int(held.data) + 1)), expect=held.version
            )

    in_threads(4, run)


def count(folder: Path, *, blind: bool, workers: int, times: int) -> Any:
    """Processes of four threads that count from 0; gives them, and the record."""
    given = record(data=b"0")
    FileStore(folder).save(given, expect=0)
    processes = [
        SPAWN.Process(target=increment, args=(folder, given, blind, times))
        for _ in range(workers)
    ]
    for each in processes:
        each.start()
    return processes, given


def write_forever(folder: Path, given: Record, told: Any) -> None:
    store = FileStore(folder)
    told.send(None)
    number = 1
    while True:
        held = locked(store, given)
        number += 1
        store.save(newer(held, data=b"%d " % number * 20_000), expect=held.version)


class TestProcesses:
    @pytest.mark.parametrize("blind", [False, True])
    def test_no_update_is_lost(
        self, store: FileStore, folder: Path, blind: bool
    ) -> None:
        """4 processes of 4 threads count to 800; with a blind store they do not."""
        workers, given = count(folder, blind=blind, workers=4, times=50)
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        loaded = store.load(key(given))
        assert loaded is not None
        if blind:
            assert int(loaded.data) < 800
        else:
            assert loaded.data == b"800"

    @pytest.mark.parametrize("how", ["lock", "save", "wait"])
    def test_a_killed_holder_holds_nobody_up(
        self, store: FileStore, folder: Path, how: str
    ) -> None:
        """The next one locks or saves at once, though the lease has long to go."""
        given = record()
        store.save(given, expect=0)
        late = newer(given)
        with holder(folder, given) as (process, _):
            assert not may_lock(store, given)
            refused(store, late, expect=given.version)
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
                    store.save(late, expect=given.version)
                    assert may_lock(store, given, wait=0)
                else:
                    assert waiter.result()
                assert time.monotonic() - began < AT_ONCE

    def test_every_look_tells_that_a_holder_died(
        self, store: FileStore, folder: Path
    ) -> None:
        """The first one to notice takes no evidence away from the next."""
        one, two = record("one"), record("two")
        store.save(one, expect=0)
        store.save(two, expect=0)
        with holder(folder, one, two) as (process, _):
            process.kill()
            process.join()
            for given in (one, two):
                assert may_lock(store, given, wait=AT_ONCE)
                assert store.delete_expired(batch=10) == 0

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

    def test_a_killed_waiter_leaves_the_queue(
        self, store: FileStore, folder: Path
    ) -> None:
        """It counts until its wait would have been over, and no longer."""
        given = record()
        store.save(given, expect=0)
        mine = locked(store, given)

        def waiting() -> int | None:
            with pytest.raises(LockTimeout) as caught:
                store.lock(key(given), wait=0.05, lease=30, waiters=1)
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

        def data() -> bytes:
            loaded = store.load(key(given))
            assert loaded is not None
            return loaded.data

        for number in range(3):
            here, there = SPAWN.Pipe()
            process = SPAWN.Process(target=write_forever, args=(folder, given, there))
            process.start()
            assert here.poll(60)
            before = data()
            eventually(lambda before=before: data() != before)
            time.sleep(0.05 + number / 100)
            process.kill()
            process.join()
            held = locked(store, given)
            assert held.data == held.data[: held.data.index(b" ") + 1] * 20_000
            store.unlock(held)
        assert caplog.messages == []


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
from wsgisession.record import Key
from wsgisession.stores.file import FileStore
store = FileStore(sys.argv[1])
found = store.load(Key(sys.argv[2]))
print("asks", flush=True)
saving = gevent.spawn(store.save, found._replace(version=2), expect=found.version)
for _ in range(20):
    gevent.sleep(0.01)
assert not saving.ready()
print("others ran", flush=True)
saving.get()
print("saved", flush=True)
"""


class TestGreenlets:
    def test_who_waits_for_a_lock_file_lets_others_run(
        self, store: FileStore, folder: Path
    ) -> None:
        """A lock of the system that waits in C would stop all greenlets of a hub."""
        try:
            import gevent  # noqa: F401
        except ImportError:
            missing("gevent")
        given = record()
        store.save(given, expect=0)
        with open(stripe_of(folder, given)) as stripe:
            fcntl.flock(stripe, fcntl.LOCK_EX)
            with subprocess.Popen(
                [sys.executable, "-c", GREENLETS, folder, given.id],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                guard = threading.Timer(60, process.kill)
                guard.start()
                try:
                    assert process.stdout.readline() == "asks\n"
                    assert process.stdout.readline() == "others ran\n"
                    fcntl.flock(stripe, fcntl.LOCK_UN)
                    assert process.stdout.readline() == "saved\n"
                finally:
                    guard.cancel()
            assert process.returncode == 0


class TestLeases:
    def test_two_sessions_of_a_stripe(self, store: FileStore) -> None:
        """What shares a lock file shares no lease."""
        one, two = record(id="ab" + "1" * 30), record(id="ab" + "2" * 30)
        store.save(one, expect=0)
        store.save(two, expect=0)
        first = locked(store, one)
        locked(store, two)
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
                held = locked(store, given, wait=LEASE)
                taken.set()
                time.sleep(0.01)
                store.unlock(held)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(hog)
            try:
                for _ in range(10):
                    taken.clear()
                    assert taken.wait(60)
                    store.unlock(locked(store, given))
            finally:
                done.set()

    @pytest.mark.parametrize("how", ["unlock", "touch", "delete", "save"])
    def test_an_ended_lease_leaves_blanks(
        self, store: FileStore, folder: Path, how: str
    ) -> None:
        """Lock files do not grow with the sessions that were ever locked."""
        given = record()
        store.save(given, expect=0)
        for _ in range(3):
            mine = locked(store, given)
            assert stripe_of(folder, given).read_bytes().strip()
            match how:
                case "unlock":
                    store.unlock(mine)
                case "touch":
                    assert store.touch(mine) is True
                case "delete":
                    assert store.delete(key(mine)) is True
                    store.save(given, expect=0)
                case _:
                    store.save(mine, expect=mine.version)
            assert not stripe_of(folder, given).read_bytes().strip()
        assert stripe_of(folder, given).stat().st_size < 200

    def test_a_lock_file_shrinks_again(self, store: FileStore, folder: Path) -> None:
        """After a crowd it keeps no more than a page."""
        held = []
        for number in range(60):
            given = record(id=f"ab{number:030x}")
            store.save(given, expect=0)
            held.append(locked(store, given))
        assert stripe_of(folder, given).stat().st_size > 4096
        for each in held:
            store.unlock(each)
        assert stripe_of(folder, given).stat().st_size == 4096
        assert may_lock(store, given, wait=AT_ONCE)


# -- jobs that sweep old files ---------------------------------------------------------


class TestSweptByAge:
    """A cron job or a cleaner of the system takes what was not written for a while."""

    def test_a_swept_holder_loses_no_update(
        self, store: FileStore, folder: Path
    ) -> None:
        """While 4 processes of 4 threads count, their holders are taken away."""
        workers, given = count(folder, blind=False, workers=4, times=20)
        taken = 0
        while any(worker.is_alive() for worker in workers):
            for path in holders(folder):
                path.unlink()
                taken += 1
            time.sleep(0.001)
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert taken >= 4
        loaded = store.load(key(given))
        assert loaded is not None
        assert loaded.data == b"320"

    def test_a_live_lease_outlives_its_holders_file(
        self, store: FileStore, folder: Path
    ) -> None:
        """Until it is given back or runs out; a missing file tells of no death."""
        twin, given = FileStore(folder), record()
        store.save(given, expect=0)
        mine = locked(store, given)
        (path,) = holders(folder)
        path.unlink()
        assert not may_lock(twin, given)
        refused(twin, newer(given), expect=given.version)
        saved = newer(mine)
        store.save(saved, expect=given.version)
        locked(store, saved, lease=0.2)
        assert may_lock(twin, saved, wait=AT_ONCE)

    def test_a_holder_in_use_is_kept_young(
        self, store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that no job takes it; and with it goes no session's lock."""
        given = record()
        store.save(given, expect=0)
        store.unlock(locked(store, given))
        (path,) = holders(folder)
        age(path)
        monkeypatch.setattr(time, "monotonic", later(time.monotonic))
        locked(store, given)
        assert holders(folder) == [path]
        assert is_young(path)

    def test_a_worker_that_was_idle_gets_a_new_holder(
        self, store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the file was taken in the meantime, its death is seen as any other."""
        given = record()
        store.save(given, expect=0)
        store.unlock(locked(store, given))
        (path,) = holders(folder)
        shutil.rmtree(path.parent)
        monkeypatch.setattr(time, "monotonic", later(time.monotonic))
        locked(store, given)
        (again,) = holders(folder)
        assert again != path
        with open(again) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @pytest.mark.parametrize("how", ["save", "touch", "lock", "delete"])
    def test_a_lock_file_in_use_is_kept_young(
        self, store: FileStore, folder: Path, how: str
    ) -> None:
        """Also where nothing is written into it."""
        given = record()
        store.save(given, expect=0)
        age(stripe_of(folder, given))
        match how:
            case "save":
                store.save(newer(given), expect=given.version)
            case "touch":
                store.touch(given)
            case "lock":
                locked(store, given)
            case _:
                store.delete(key(given))
        assert is_young(stripe_of(folder, given))

    def test_a_lock_file_that_is_swept_while_it_is_opened(
        self, store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lock is of the file that has the name then, or two would hold one."""
        given = record()
        store.save(given, expect=0)
        path, real, swept = stripe_of(folder, given), leases.lock_descriptor, []

        def sweep_and_lock(fd: int, **options: Any) -> bool:
            if not swept:
                swept.append(path)
                path.unlink()
            return real(fd, **options)

        monkeypatch.setattr(leases, "lock_descriptor", sweep_and_lock)
        locked(store, given)
        assert swept
        assert path.read_bytes().strip()
        assert not may_lock(FileStore(folder), given)

    @pytest.mark.parametrize("how", ["save", "touch"])
    @pytest.mark.parametrize("is_swept", [False, True])
    def test_a_marker_lives_as_long_as_its_session(
        self, store: FileStore, folder: Path, how: str, is_swept: bool
    ) -> None:
        """An old session that is in use is still listed, and its marker is young."""
        given = record(user="ann", accessed=LONG_AGO)
        store.save(given, expect=0)
        (marker,) = markers(folder)
        age(marker)
        if is_swept:
            shutil.rmtree(marker.parent)
        used = given._replace(accessed=time.time())
        if how == "touch":
            assert store.touch(used) is True
        else:
            store.save(used, expect=given.version)
        assert [each.id for each in store.records(user="ann")] == [given.id]
        assert is_young(marker)

    def test_folders_that_were_swept_are_made_again(
        self, store: FileStore, folder: Path
    ) -> None:
        """Cleaners take empty folders too."""
        given = record(user="ann")
        for path in (file_of(folder, given).parent, folder / "users"):
            path.rmdir()
        for path in (folder / "locks", folder / "holders"):
            shutil.rmtree(path)
        assert list(store.records()) == []
        assert list(store.records(user="ann")) == []
        store.save(given._replace(user=None), expect=0)
        store.save(given, expect=given.version)
        assert list(store.records(user="ann")) == [stored(given)]
        assert may_lock(store, given)
        assert len(holders(folder)) == 1


def later(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that is two minutes ahead."""
    return lambda: clock() + 120


# -- sweeping --------------------------------------------------------------------------


class TestSweep:
    def test_it_races_no_writer(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is renewed after the sweep looked and before it acts, stays."""
        given = record(expires=time.time() - 1)
        store.save(given, expect=0)
        again = given._replace(expires=time.time() + 60)
        look = module.expiry

        def look_and_renew(start: bytes) -> float:
            seen = look(start)
            store.save(again, expect=0)
            return seen

        monkeypatch.setattr(module, "expiry", look_and_renew)
        assert store.delete_expired(batch=10) == 0
        assert store.load(key(given)) == stored(again)

    def test_small_batches_do_not_start_over(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cost of a sweep does not multiply by the number of batches."""
        past = time.time() - 1
        for number in range(60):
            store.save(record(id=f"ab{number:029x}0", expires=past), expect=0)
            store.save(record(id=f"ab{number:029x}1"), expect=0)
        look, looks = module.expiry, []

        def note(start: bytes) -> float:
            looks.append(start)
            return look(start)

        monkeypatch.setattr(module, "expiry", note)
        calls = 1
        while store.delete_expired(batch=1):
            calls += 1
        assert calls == 61
        assert len(looks) < 120 + 2 * 60  # one round, and a last one

    def test_what_comes_behind_it_is_found_later(self, store: FileStore) -> None:
        """A record added where the sweep has been is found in the next round."""
        past = time.time() - 1
        for digit in "37b":
            store.save(record(id=digit * 32, expires=past), expect=0)
        assert store.delete_expired(batch=2) == 2
        store.save(record(id="1" * 32, expires=past), expect=0)
        store.save(record(id="7" * 31 + "0", expires=past), expect=0)
        assert store.delete_expired(batch=5) == 3
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
        locked(store, given)
        (mine,) = holders(folder)
        dead, died_just_now = (folder / "holders" / name for name in ("dead", "just"))
        path = file_of(folder, given)
        old, young = path.with_suffix(".1.tmp"), path.with_suffix(".2.tmp")
        for each in (dead, died_just_now, old, young):
            each.touch()
        for each in (mine, dead, old):
            age(each)
        assert store.delete_expired(batch=10) == 0
        assert holders(folder) == sorted([mine, died_just_now])
        assert drafts(folder) == [young]
        assert not may_lock(FileStore(folder), given)


# -- what it costs ---------------------------------------------------------------------


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of the system on files, in their order; locks and clocks are not told."""
    calls: list[str] = []
    names = "open read pread write pwrite close fsync mkdir rmdir replace rename unlink"
    names += " link stat lstat fstat lseek ftruncate utime listdir scandir"
    with monkeypatch.context() as patch:
        for name in names.split():
            real = getattr(os, name)

            def spy(*args: Any, name: str = name, real: Any = real, **more: Any) -> Any:
                calls.append(name)
                return real(*args, **more)

            patch.setattr(os, name, spy)
        yield calls


class TestCosts:
    """No needless call of the system."""

    def test_of_a_reader(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three calls, and none of them waits."""
        given = record(user="ann")
        store.save(given, expect=0)
        with counted(monkeypatch) as calls:
            store.load(key(given))
        assert calls == ["open", "read", "close"]

    def test_of_a_new_session(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It looks for no older one, takes no lock, and makes no folder."""
        with counted(monkeypatch) as calls:
            store.save(record(), expect=0)
        assert calls == ["open", "pwrite", "close", "link", "unlink"]

    def test_of_a_change(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lock and a save take one write each for the lease."""
        given = record(user="ann")
        store.save(given, expect=0)
        store.unlock(locked(store, given))
        with counted(monkeypatch) as calls:
            mine = locked(store, given)
            store.save(newer(mine), expect=mine.version)
        read = ["open", "read", "close"]
        stripe = ["open", "fstat", "read"]
        assert calls == [
            *[*stripe, *read, "pwrite", "close"],
            *[*stripe, *read, "open", "pwrite", "close", "replace", "pwrite", "close"],
        ]

    def test_of_a_touch_that_is_late(
        self, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the clock is ahead already nothing is written."""
        given = record()
        store.save(given, expect=0)
        with counted(monkeypatch) as calls:
            assert store.touch(given) is True
        assert "replace" not in calls
        assert "pwrite" not in calls


class TestDurability:
    @pytest.mark.parametrize(
        ("durability", "waits"),
        [("replace", [0, 0, 0, 0]), ("fsync", [2, 2, 2, 1])],
    )
    def test_what_waits_for_the_disk(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        durability: Any,
        waits: list[int],
    ) -> None:
        """With "fsync" the contents and the name, and the name that goes, too."""
        store = FileStore(folder, durability=durability)
        given = record()
        later = newer(given, expires=given.expires + 60)
        steps: list[Callable[[], Any]] = [
            lambda: store.save(given, expect=0),
            lambda: store.save(later, expect=given.version),
            lambda: store.touch(later._replace(expires=later.expires + 9)),
            lambda: store.delete(key(given)),
        ]
        seen = []
        for step in steps:
            with counted(monkeypatch) as calls:
                step()
            seen.append(calls.count("fsync"))
        assert seen == waits

    def test_the_contents_come_before_the_name(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or a power cut could leave a name without them; folders that are new first."""
        store = FileStore(folder, durability="fsync")
        watched = ("mkdir", "fsync", "link", "replace", "unlink")
        with counted(monkeypatch) as calls:
            store.save(record(user="ann"), expect=0)
        folders_of_user = ["mkdir", "mkdir", "fsync", "mkdir", "fsync"]  # first in vain
        marker, contents, name = ["fsync"], ["fsync"], ["link", "unlink", "fsync"]
        assert [call for call in calls if call in watched] == (
            folders_of_user + marker + contents + name
        )
        with counted(monkeypatch) as calls:
            store.delete(Key(record().id))
        assert [call for call in calls if call in watched][:2] == ["unlink", "fsync"]
