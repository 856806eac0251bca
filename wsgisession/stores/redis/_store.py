"""Sessions in Redis or Valkey: one hash a record, alone, under Sentinel or in a Cluster.

It knows records and Redis, and nothing of where records come from.  What must be one
step is one Lua script over one key, in ``scripts/``.  Leases and expiry go by the
server's clock.

A record's hash holds ``version``; ``data``; ``meta``, a JSON object of what only a save
changes; ``accessed``; ``expires``; and the store's own: ``lease``, ``waiters`` (who waits
for the lease until when, JSON) and ``listed`` (the user whose index lists the record, and
until when).

Redis replicates after it has answered: a primary that dies may take the last moments of
writes with it, and a failover then shows the record as it was just before them.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

import redis
from redis.cluster import RedisCluster
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from ..._health import Finding
from ...errors import ConfigurationError, LockTimeout, StoreError, VersionConflict
from ...record import Key, Record
from ...store import Capabilities
from ._failures import broken
from ._hashes import (
    FIELDS,
    digest,
    life,
    listed_until,
    record_of,
    texts,
    to_bytes,
    to_text,
)
from ._health import examine
from ._servers import Command, of_client, of_url, run

PAGE = 500
"""Ids that are asked for in one packet."""
LOADED = 25
"""Records that are: a few at once cost little more than many, and take little room."""
POLL = 0.001
"""Seconds between two looks of the first in the queue."""
REFRESH = 60.0
"""Seconds after which the server is asked again whether it may evict."""

SAVED, UNLISTED = 1, 2

log = logging.getLogger("wsgisession")
T = TypeVar("T")


class _Script:
    """A script over one key, and the name by which the server remembers it."""

    def __init__(self, name: str) -> None:
        folder = files(__package__) / "scripts"
        self.text = b"".join(
            (folder / f"{each}.lua").read_bytes() for each in ("prelude", name)
        )
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def by_name(self, key: bytes, *arguments: Any) -> Command:
        return Command(key, ("EVALSHA", self.sha, 1, key, *arguments))

    def by_text(self, key: bytes, *arguments: Any) -> Command:
        return Command(key, ("EVAL", self.text, 1, key, *arguments))


_LOCK, _SAVE, _TOUCH, _UNLOCK, _DELETE, _LIST = map(
    _Script, ("lock", "save", "touch", "unlock", "delete", "list")
)
_ID = re.compile("[0-9a-f]{32}")
_EVICTION = re.compile(rb"maxmemory_policy:(?!noeviction)(\S+)")


@dataclass(frozen=True, slots=True)
class _Lease:
    """A lock that was given out."""

    token: str


class RedisStore:
    """A hash a record in Redis 6.2 or newer, or Valkey.

    :param url: ``redis://``, ``rediss://`` or ``unix://`` as redis-py has them,
        ``redis+sentinel://host:port,host:port/service/db``, or
        ``redis+cluster://host:port,host:port``; the last two take ``?ssl=true``, and
        sentinels have options of their own that begin with ``sentinel_``, such as
        ``sentinel_password`` and ``sentinel_ssl``.
    :param client: instead of ``url``, your own ``Redis`` or ``RedisCluster``.
    :param key_prefix: what the keys begin with.
    :param socket_timeout: seconds to connect, and seconds for an answer; a client of
        yours brings its own.

    Raises ``ConfigurationError`` for a url that is not understood; no server is asked.
    """

    capabilities: Capabilities = Capabilities(locks=True, lists=True, forgets=True)

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | RedisCluster | None = None,
        key_prefix: str = "session:",
        socket_timeout: float = 5.0,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigurationError(
                "a Redis store takes either a url or a client, exactly one of them"
            )
        if not key_prefix:
            raise ConfigurationError(
                "key_prefix is empty, so that every key of the database would be a "
                "session; give it at least one character"
            )
        if socket_timeout <= 0:
            raise ConfigurationError("socket_timeout must be more than 0 seconds")
        self._server = of_client(client) if url is None else of_url(url, socket_timeout)
        self._client = client  # whose end would cut the connections
        self._prefix = key_prefix.encode()
        self._is_met = False
        """Whether the server has answered, and was asked whether it evicts."""
        self._may_evict = False
        self._eviction_is_known_until = 0.0

    def examine(self) -> Iterator[Finding]:
        """What there is to know of the server; of a cluster, of one of its nodes."""
        try:
            yield from examine(partial(self._server.run, self._prefix))
        except RedisError as error:
            raise broken(error, self._server.place) from error

    # -- records -----------------------------------------------------------------------

    def load(self, key: Key) -> Record | None:
        if not _ID.fullmatch(key.id):
            return None
        at = self._key(key.id)
        return record_of(
            key.id, self._ask(partial(self._server.run, at, "HMGET", at, *FIELDS))[0]
        )

    def save(self, record: Record, *, expect: int) -> None:
        at, lease = self._key(record.id), _token_of(record)
        user = "" if record.user is None else digest(record.user)[:32]
        before = (at, expect, record.version, lease, user)
        after = (life(record), record.data, *texts(record))
        lost = False
        if record.user is not None and expect == 0:
            (_, reply), lost = self._insert(record, before, after)
        else:
            reply, lost = self._call(_SAVE, *before, "", *after)
        if reply == UNLISTED:
            listed = self._list(record)
            reply, lost_now = self._call(_SAVE, *before, listed, *after)
            lost = lost or lost_now
        if reply == SAVED:
            return
        current = record_of(record.id, reply)
        if lost and (current is None or current.version != expect):
            raise StoreError(
                f"Redis at {self._server.place} was lost during a save, and what it "
                "holds since may have been made from what was saved"
            )
        raise VersionConflict(record.id, current)

    def touch(self, record: Record) -> bool:
        before = (self._key(record.id), record.version, _token_of(record))
        after = (life(record), repr(record.accessed), repr(record.expires))
        reply = self._call(_TOUCH, *before, "", *after)[0]
        if reply == UNLISTED:
            reply = self._call(_TOUCH, *before, self._list(record), *after)[0]
        return bool(reply == 1)

    def delete(self, key: Key, *, user: str | None = None) -> bool:
        if not _ID.fullmatch(key.id):
            return False
        arguments = () if user is None else (to_bytes(user),)
        reply, _ = self._call(_DELETE, self._key(key.id), *arguments)
        if isinstance(reply, bytes):
            index = self._index(to_text(reply))
            try:
                self._ask(partial(self._server.run, index, "ZREM", index, key.id))
            except StoreError:
                log.debug("session %s was deleted; its index entry ends later", key.id)
        return bool(reply != 0)

    # -- locks -------------------------------------------------------------------------

    def lock(
        self, key: Key, *, wait: float, lease: float, waiters: int, by: str = ""
    ) -> Record | None:
        if not _ID.fullmatch(key.id):
            return None
        token, end = secrets.token_hex(8), time.monotonic() + wait
        proof = () if key.proof is None else (key.proof,)
        while True:
            left = max(end - time.monotonic(), 0.0)
            reply, _ = self._call(
                *(_LOCK, self._key(key.id), token),
                *(int(lease * 1000), int(left * 1000), waiters, to_bytes(by), *proof),
            )
            if isinstance(reply, list):
                is_ours, values = reply
                record = record_of(key.id, values)
                if record is None or not is_ours:
                    return record
                return record._replace(lease=_Lease(token))
            if reply < 0:
                raise self._timeout(key.id, wait - left, -1 - reply)
            if not left:
                raise self._timeout(key.id, wait)
            # The further back in the queue, the more patient: many cost hardly more
            # looks than one, and the oldest has the best chance.
            pause = POLL * min(1 + 3 * reply, 20) * random.uniform(0.5, 1.5)  # noqa: S311
            time.sleep(min(left, pause))

    def _timeout(
        self, id: str, waited: float, waiters: int | None = None
    ) -> LockTimeout:
        """The error, with what is known of the holder."""
        at = self._key(id)
        with suppress(StoreError):
            lease, _ = self._ask(partial(self._server.run, at, "HGET", at, "lease"))
            if lease is not None:
                _, since, _, by = to_text(lease).split(" ", 3)
                held_for = max(time.time() - int(since) / 1000, 0.0)
                return LockTimeout(id, waited, waiters, held_by=by, held_for=held_for)
        return LockTimeout(id, waited, waiters)

    def unlock(self, record: Record) -> None:
        if token := _token_of(record):
            self._call(_UNLOCK, self._key(record.id), token)

    # -- all records, and those of a user ----------------------------------------------

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        """All records, or those of one user.

        Where the server may evict, the index of a user may be gone before the sessions
        are: then all sessions are looked through.
        """
        walks = user is None or self._evicts()
        for ids in self._pages() if walks else self._pages_of(user or ""):
            for record in self._load_page(ids):
                if user is None or record.user == user:
                    yield record

    def delete_expired(self, *, batch: int) -> int:
        return 0

    def _load_page(self, ids: Sequence[str]) -> Iterator[Record]:
        for start in range(0, len(ids), LOADED):
            commands, some = [], ids[start : start + LOADED]
            for id in some:
                at = self._key(id)
                commands.append(Command(at, ("HMGET", at, *FIELDS)))
            found, _ = self._ask(partial(self._server.run_in_any_order, commands))
            for id, values in zip(some, found, strict=True):
                if (record := record_of(id, values)) is not None:
                    yield record

    def _pages_of(self, user: str) -> Iterator[list[str]]:
        index = self._index(user)
        found, _ = self._ask(partial(self._server.run, index, "ZRANGE", index, 0, -1))
        ids = [each.decode() for each in found]
        return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))

    def _pages(self) -> Iterator[list[str]]:
        """The ids of all records; one may come twice when the server shrinks a table.

        Exactly those under our prefix: another store's may begin like ours.
        """
        begin = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._prefix)
        asked = ("MATCH", begin + 32 * b"?", "COUNT", PAGE, "TYPE", "hash")
        for connections in self._ask(self._server.primaries)[0]:
            cursor: bytes | None = b"0"
            while cursor is not None:
                scan = partial(run, connections, "SCAN", cursor, *asked)
                (after, keys), _ = self._ask(scan)
                names = (key[len(self._prefix) :].decode("latin-1") for key in keys)
                if ids := list(dict.fromkeys(filter(_ID.fullmatch, names))):
                    yield ids
                cursor = None if after == b"0" else after

    def _evicts(self) -> bool:
        """Whether a server may evict keys; so taken as well if it will not say."""
        if time.monotonic() >= self._eviction_is_known_until:
            try:
                policies = [
                    policy[1].decode()
                    for connections in self._ask(self._server.primaries)[0]
                    if (policy := _EVICTION.search(self._memory(connections)))
                ]
            except _Unknown:
                policies = ["unknown"]
            if policies and not self._may_evict:
                log.warning(
                    "this Redis may evict sessions (maxmemory-policy is %s): users may "
                    "be logged out at any time, and the sessions of a user are found "
                    "by looking through all; set the policy to noeviction",
                    policies[0],
                )
            self._may_evict = bool(policies)
            self._eviction_is_known_until = time.monotonic() + REFRESH
        return self._may_evict

    def _meet(self) -> None:
        """Ask at the first answer whether the server evicts, so that it is warned of."""
        self._is_met = True
        with suppress(StoreError):
            self._evicts()

    def _memory(self, connections: Any) -> bytes:
        try:
            told, _ = self._ask(partial(run, connections, "INFO", "memory"))
        except StoreError as error:
            if isinstance(error.__cause__, ResponseError):  # we must not ask
                raise _Unknown from error
            raise
        return bytes(told)

    # -- the users' indexes ------------------------------------------------------------

    def _insert(
        self, record: Record, before: tuple[Any, ...], after: tuple[Any, ...]
    ) -> tuple[list[Any], bool]:
        """Have a new record listed, and save it, in one packet where that keeps order.

        An entry that leads nowhere is harmless; a session that its user cannot end is
        not.
        """
        listed = listed_until(record)
        entry = (self._index(str(record.user)), record.id, listed, life(record))
        save = (*before, listed, *after)
        return self._ask(
            partial(
                self._server.run_in_order,
                [_LIST.by_name(*entry), _SAVE.by_name(*save)],
            ),
            partial(
                self._server.run_in_order,
                [_LIST.by_text(*entry), _SAVE.by_text(*save)],
            ),
        )

    def _list(self, record: Record) -> int:
        """Have its user's index list a record, and say until when.

        For longer than the record lives now, so that not every save and touch has to come
        here.
        """
        entry = (record.id, listed_until(record), life(record))
        reply, _ = self._call(_LIST, self._index(str(record.user)), *entry)
        return int(reply)

    # -- commands ----------------------------------------------------------------------

    def _key(self, id: str) -> bytes:
        return self._prefix + to_bytes(id)

    def _index(self, user: str) -> bytes:
        return self._prefix + b"user:" + digest(user).encode()

    def _call(self, script: _Script, key: bytes, *arguments: Any) -> tuple[Any, bool]:
        run = self._server.run
        return self._ask(
            partial(run, key, "EVALSHA", script.sha, 1, key, *arguments),
            partial(run, key, "EVAL", script.text, 1, key, *arguments),
        )

    def _ask(
        self, first: Callable[[], T], again: Callable[[], T] | None = None
    ) -> tuple[T, bool]:
        """What the server answers, asked once more where that may help.

        And whether the first question may have been heard though its answer was lost.  A
        server that takes too long is not asked twice: the caller has waited long enough.
        """
        try:
            try:
                answer = first()
                if not self._is_met:
                    self._meet()
                return answer, False
            except NoScriptError:
                lost = False
            except (BusyLoadingError, ClusterDownError, ReadOnlyError):
                lost = False
                self._server.close_idle()
            except ConnectionError:
                lost = True
                self._server.close_idle()
            except ResponseError as error:
                if "READONLY" not in str(error):  # so Redis 6 tells it of a script
                    raise
                lost = False
                self._server.close_idle()
            return (again or first)(), lost
        except (RedisError, RedisClusterException, OSError) as error:
            raise broken(error, self._server.place) from error


class _Unknown(Exception):
    """The server does not tell whether it evicts."""


def _token_of(record: Record) -> str:
    return record.lease.token if isinstance(record.lease, _Lease) else ""
