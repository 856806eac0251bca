"""Sessions in Redis or Valkey: one hash a record, alone, under Sentinel or in a Cluster.

It knows records and Redis, and nothing of where records come from.  What must be one
step is one Lua script over one key, on the server's clock.  Each script knows its own
repetition by a token, because a reply can be lost after the server did the work.

A record's hash holds ``d`` data, ``v`` version, ``c a x`` created, accessed, expires,
where needed ``u`` user, ``s`` state, ``n`` successor, and the store's own: ``w`` the
token of the last write, ``l f`` the lease and its end, ``q`` who waits for it until
when (JSON), ``i`` until when the user's index lists the record.  Ends are in
milliseconds.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

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

from ..errors import ConfigurationError, Conflict, LockTimeout, StoreError
from ..record import Key, Record, State
from ._redis_servers import of_client, of_url, run

PAGE = 500
POLL = 0.001
"""Seconds between two looks of the first in the queue."""
FAR = 253_402_300_800
"""The year 10000: a server refuses ends that are much further."""

log = logging.getLogger("wsgisession")


class _Script:
    """A script over one key, and the name by which the server remembers it."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


_FIELDS = ("v", "d", "c", "a", "x", "u", "s", "n", "w")
_READ = f"redis.call('HMGET', KEYS[1], {str(_FIELDS)[1:-1]})"
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Returns the record where there is nothing to wait for, else how many are ahead of us;
# below zero: the queue is full.  Whoever comes while others wait gets in line, also
# where the lock happens to be free: else one who comes back at once starves the rest.
# Nobody needs to leave the queue in good order: everyone is in it until an end.
_LOCK = _Script(
    f"""{_NOW}
local key, token = KEYS[1], ARGV[1]
local lease, wait, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local version, state, holder, held, queue =
    unpack(redis.call('HMGET', key, 'v', 's', 'l', 'f', 'q'))
if not version or state then return {_READ} end
queue = queue and cjson.decode(queue) or {{}}
local mine, ahead, waiting = queue[token], 0, 0
for other, ends in pairs(queue) do
    if ends <= now then
        queue[other] = nil
    elseif other ~= token then
        waiting = waiting + 1
        if not mine or ends <= mine then ahead = ahead + 1 end
    end
end
local taken = holder and holder ~= token and tonumber(held) > now
if taken or waiting > 0 and not mine then
    if not mine then
        if waiting >= limit then return -1 - waiting end
        queue[token] = now + wait
        redis.call('HSET', key, 'q', cjson.encode(queue))
    end
    return ahead
end
if mine then
    queue[token] = nil
    redis.call('HSET', key, 'q', cjson.encode(queue))
end
redis.call('HSET', key, 'l', token, 'f', now + lease)
return {_READ}
"""
)

# Returns 1: saved; 2: nothing done, the user's index has to list the record first; else
# the record that stood in the way.  The first HSET is where a full server refuses; after
# any other write it would let the rest of the script pass.
_SAVE = _Script(
    f"""
local key, expect, write, lease, seen = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local expires, user, listed = ARGV[5], ARGV[6], ARGV[7]
local version, last, holder, held, old_user, old_listed =
    unpack(redis.call('HMGET', key, 'v', 'w', 'l', 'f', 'u', 'i'))
if last == write then return 1 end
local shut = false
if holder and holder ~= lease then
    {_NOW}
    shut = tonumber(held) > now
end
if (version or '0') ~= expect or seen ~= '' and seen ~= last or shut then
    if holder == lease then redis.call('HDEL', key, 'l', 'f') end
    return {_READ}
end
if listed == '' and old_user == user then listed = old_listed or '' end
if listed == '' or listed ~= 'no' and tonumber(listed) < tonumber(expires) then
    return 2
end
redis.call('HSET', key, 'w', write)
redis.call('HDEL', key, 'l', 'f', 'u', 's', 'n', 'i')
redis.call('HSET', key, unpack(ARGV, 8))
if listed ~= 'no' then redis.call('HSET', key, 'i', listed) end
redis.call('PEXPIREAT', key, expires)
return 1
"""
)

# Returns 1 or 2, as saving does.
_TOUCH = _Script(
    """
local key, version, lease = KEYS[1], ARGV[1], ARGV[2]
local accessed, expires, ends, listed = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local current, holder, old_listed = unpack(redis.call('HMGET', key, 'v', 'l', 'i'))
if current == version then
    listed = listed ~= '' and listed or old_listed
    if listed and tonumber(listed) < tonumber(ends) then return 2 end
    redis.call('HSET', key, 'a', accessed, 'x', expires)
    if listed then redis.call('HSET', key, 'i', listed) end
    redis.call('PEXPIREAT', key, ends)
end
if holder == lease then redis.call('HDEL', key, 'l', 'f') end
return 1
"""
)

_UNLOCK = _Script(
    """
if redis.call('HGET', KEYS[1], 'l') == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'l', 'f')
end
return 1
"""
)

# An entry never ends earlier than it did, and the index ends with its last entry.
_LIST = _Script(
    f"""{_NOW}
local key, ends, id = KEYS[1], ARGV[1], ARGV[2]
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
redis.call('ZADD', key, 'GT', ends, id)
redis.call('PEXPIREAT', key, redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2])
return 1
"""
)


@dataclass(frozen=True, slots=True)
class _Lease:
    """Our lock: its token, and what it found, because a failover can repeat a version."""

    token: str
    version: int
    write: bytes


class RedisStore:
    """A hash a record in Redis 6.2 or newer, or Valkey.

    :param url: ``redis://``, ``rediss://`` or ``unix://`` as redis-py has them,
        ``redis+sentinel://host:port,host:port/service/db``, or
        ``redis+cluster://host:port,host:port``.
    :param client: instead of ``url``, your own ``Redis`` or ``RedisCluster``.
    :param key_prefix: what the keys begin with.
    :param lock_waiters: how many may wait for one session before ``LockTimeout``.
    :param timeout: seconds to connect, and seconds for an answer; a client of yours
        brings its own.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | RedisCluster | None = None,
        key_prefix: str = "session:",
        lock_waiters: int = 50,
        timeout: float = 5.0,
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
        if lock_waiters < 0 or timeout <= 0:
            raise ConfigurationError(
                "lock_waiters must be 0 or more, and timeout more than 0 seconds"
            )
        self._server = of_client(client) if url is None else of_url(url, timeout)
        self._client = client  # whose end would cut the connections
        self._prefix = key_prefix.encode()
        self._lock_waiters = lock_waiters

    def load(self, key: Key) -> Record | None:
        return _record(key.id, self._ask("HMGET", self._key(key.id), *_FIELDS)[0])

    def save(self, record: Record, *, expect: int) -> str | None:
        lease = _lease_of(record)
        seen = lease.write if lease.version == expect else b""
        user = (record.user or "").encode("utf-8", "surrogatepass")
        fixed = (expect, secrets.token_hex(8), lease.token, seen, _ends(record), user)

        def attempt(listed: int | str) -> tuple[Any, bool]:
            at = self._key(record.id)
            return self._call(_SAVE, at, *fixed, listed, *_fields(record, user))

        if record.user is None or record.state != "live":
            reply, lost = attempt("no")
        else:
            reply, lost = attempt(self._list(record) if expect == 0 else "")
            if reply == 2:
                reply, lost = attempt(self._list(record))
        if reply == 1:
            return record.token
        current = _record(record.id, reply)
        if lost and current is not None:
            raise StoreError(
                "Redis was lost during a save and holds another's since, "
                "which may have been made from ours"
            )
        raise Conflict(record.id, current)

    def touch(self, record: Record) -> str | None:
        times = (repr(record.accessed), repr(record.expires), _ends(record))
        fixed = (record.version, _lease_of(record).token, *times)
        at = self._key(record.id)
        if self._call(_TOUCH, at, *fixed, "")[0] == 2:
            self._call(_TOUCH, at, *fixed, self._list(record))
        return record.token

    def delete(self, record: Record) -> None:
        self._ask("DEL", self._key(record.id))
        if record.user is not None:
            self._ask("ZREM", self._index(record.user), record.id)

    def lock(self, key: Key, *, wait: float, lease: float) -> Record | None:
        token, end = secrets.token_hex(8), time.monotonic() + wait
        while True:
            left = max(end - time.monotonic(), 0.0)
            reply, _ = self._call(
                *(_LOCK, self._key(key.id), token),
                *(int(lease * 1000), int(left * 1000), self._lock_waiters),
            )
            if isinstance(reply, list):
                return _locked(_record(key.id, reply), token, reply[-1])
            if reply < 0:
                raise LockTimeout(key.id, wait - left, -1 - reply)
            if not left:
                raise LockTimeout(key.id, wait)
            # The further back in the queue, the more patient: many cost hardly more
            # looks than one, and the oldest has the best chance.
            pause = POLL * min(1 + 3 * reply, 20) * random.uniform(0.5, 1.5)  # noqa: S311
            time.sleep(min(left, pause))

    def unlock(self, record: Record) -> None:
        if lease := _lease_of(record).token:
            self._call(_UNLOCK, self._key(record.id), lease)

    def records(self, *, user: str | None = None) -> Iterator[Record]:
        for id in self._ids() if user is None else self._ids_of(user):
            record = self.load(Key(id))
            if (
                record is not None
                and record.state == "live"
                and (user is None or record.user == user)
            ):
                yield record

    def delete_expired(self, *, batch: int) -> int:
        return 0

    def _key(self, id: str) -> bytes:
        return self._prefix + id.encode("utf-8", "surrogatepass")

    # -- the users' indexes ------------------------------------------------------------

    def _index(self, user: str) -> bytes:
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        return self._prefix + b"user:" + digest.encode()

    def _list(self, record: Record) -> int:
        """Have its user's index list a record, and say until when.

        Before the record is written: an entry that leads nowhere is harmless, a session
        that its user cannot end is not.  For longer than the record lives now, so that
        not every save and touch has to come here.
        """
        ends = _ends(record) + int(max(record.expires - record.accessed, 0) * 1000)
        self._call(_LIST, self._index(cast(str, record.user)), ends, record.id)
        return ends

    def _ids_of(self, user: str) -> Iterator[str]:
        return map(bytes.decode, self._ask("ZRANGE", self._index(user), 0, -1)[0])

    def _ids(self) -> Iterator[str]:
        """The ids of all records; one may come twice when the server shrinks a table."""
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._prefix) + b"*"
        asked = ("MATCH", pattern, "COUNT", PAGE, "TYPE", "hash")
        for pool in _ask(self._server.pools)[0]:
            cursor: bytes | None = b"0"
            while cursor is not None:
                scan = partial(run, pool, "SCAN", cursor, *asked)
                (after, keys), _ = _ask(scan)
                for key in keys:
                    yield key[len(self._prefix) :].decode("utf-8", "surrogatepass")
                cursor = None if after == b"0" else after

    # -- commands ----------------------------------------------------------------------

    def _ask(self, command: str, at: bytes, *args: Any) -> tuple[Any, bool]:
        return _ask(partial(self._server.run, command, at, *args, at=at))

    def _call(self, script: _Script, at: bytes, *args: Any) -> tuple[Any, bool]:
        ask = partial(self._server.run, at=at)
        return _ask(
            partial(ask, "EVALSHA", script.sha, 1, at, *args),
            partial(ask, "EVAL", script.text, 1, at, *args),
        )


def _ask(
    first: Callable[[], Any], again: Callable[[], Any] | None = None
) -> tuple[Any, bool]:
    """What the server answers, asked once more where that may help.

    And whether the first question may have been heard though its answer was lost.  A
    server that takes too long is not asked twice: the caller has waited long enough.
    """
    try:
        try:
            return first(), False
        except (BusyLoadingError, ClusterDownError, NoScriptError, ReadOnlyError):
            lost = False
        except ConnectionError:
            lost = True
        except ResponseError as error:
            if "READONLY" not in str(error):  # so Redis 6 tells it of a script
                raise
            lost = False
        return (again or first)(), lost
    except (RedisError, RedisClusterException, OSError) as error:
        raise StoreError(f"Redis failed: {type(error).__name__}") from error


# -- records and what Redis holds of them ----------------------------------------------


def _record(id: str, values: list[Any]) -> Record | None:
    version, data, created, accessed, expires, user, state, successor, _ = values
    if version is None:
        return None
    try:
        return Record(
            id=id,
            data=bytes(data),
            version=int(version),
            created=float(created),
            accessed=float(accessed),
            expires=float(expires),
            user=None if user is None else user.decode("utf-8", "surrogatepass"),
            state="live" if state is None else cast(State, state.decode()),
            successor=None if successor is None else successor.decode(),
        )
    except (TypeError, ValueError):
        log.error("session %s is corrupt in Redis: left there, treated as absent", id)
        return None


def _fields(record: Record, user: bytes) -> list[Any]:
    fields = {
        "v": record.version,
        "d": record.data,
        "c": repr(record.created),
        "a": repr(record.accessed),
        "x": repr(record.expires),
        "u": None if record.user is None else user,
        "s": None if record.state == "live" else record.state,
        "n": record.successor,
    }
    return [part for pair in fields.items() if pair[1] is not None for part in pair]


def _ends(record: Record) -> int:
    return int(min(record.expires, FAR) * 1000)


def _lease_of(record: Record) -> _Lease:
    lease = record.lease
    return lease if isinstance(lease, _Lease) else _Lease("", -1, b"")


def _locked(record: Record | None, token: str, write: bytes) -> Record | None:
    if record is None or record.state != "live":
        return record
    return record.bare(lease=_Lease(token, record.version, write))
