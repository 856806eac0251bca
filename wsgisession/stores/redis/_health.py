"""What to know of a Redis or Valkey that keeps sessions: asked of the server itself.

Pure functions of what ``INFO`` and ``TIME`` answer, and of one setting.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from redis.exceptions import ResponseError

from ..._health import Finding, Level, clock_finding

OLDEST = (6, 2)
LAG = 10
"""Seconds that a replica may be behind."""

Info = Mapping[str, str]


def examine(run: Callable[..., Any]) -> Iterator[Finding]:
    """All findings; ``run`` sends a command and gives its answer."""
    info = _parsed(run(b"INFO"))
    yield _version(info)
    yield _role(info)
    yield _eviction(info)
    yield _memory(info)
    yield _persistence(info, _setting(run, b"save"))
    yield _last_save(info)
    yield from _replicas(info)
    seconds, micros = run(b"TIME")
    yield clock_finding(int(seconds) + int(micros) / 1e6 - time.time())


def _parsed(answer: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in answer.decode("utf-8", "replace").split())
    return {name: value for name, colon, value in pairs if colon}


def _setting(run: Callable[..., Any], name: bytes) -> str | None:
    """A setting of the server; None where it does not tell."""
    try:
        answer = run(b"CONFIG", b"GET", name)
    except ResponseError:
        return None
    value = list(answer.values()) if isinstance(answer, dict) else list(answer)[1:]
    return bytes(value[0]).decode() if value else None


def _version(info: Info) -> Finding:
    name = info.get("server_name", "redis")
    version = info.get("valkey_version") or info.get("redis_version", "0")
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    said = f"{name} {version}"
    if numbers >= OLDEST:
        return Finding(Level.OK, "version", said)
    return Finding(Level.ERROR, "version", said, "upgrade to Redis 6.2 or newer")


def _role(info: Info) -> Finding:
    if info.get("role") == "slave":
        said = "this is a replica, which takes no writes"
        advice = "give the address of the primary, or redis+sentinel://"
        return Finding(Level.ERROR, "role", said, advice)
    return Finding(Level.OK, "role", "it takes writes")


def _eviction(info: Info) -> Finding:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return Finding(Level.OK, "eviction", "nothing is evicted (noeviction)")
    said = f"maxmemory-policy is {policy}: users may be logged out when memory is short"
    advice = "CONFIG SET maxmemory-policy noeviction, on a server for sessions alone"
    return Finding(Level.WARNING, "eviction", said, advice)


def _memory(info: Info) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return Finding(Level.OK, "memory", f"{used // 2**20} MiB used, without a limit")
    said = f"{used / limit:.0%} of {limit // 2**20} MiB used"
    if used < 0.9 * limit:
        return Finding(Level.OK, "memory", said)
    return Finding(
        Level.WARNING, "memory", said, "raise maxmemory, or shorten timeouts"
    )


def _persistence(info: Info, save: str | None) -> Finding:
    if info.get("aof_enabled") == "1":
        return Finding(Level.OK, "persistence", "an append-only file is kept")
    if save:
        said = (
            f"snapshots are taken (save {save}); a crash loses what came after the last"
        )
        advice = "CONFIG SET appendonly yes"
        return Finding(Level.WARNING, "persistence", said, advice)
    if save is None:
        return Finding(Level.OK, "persistence", "the server does not tell its settings")
    said = "nothing is kept on disk: a restart logs everybody out"
    return Finding(Level.WARNING, "persistence", said, "CONFIG SET appendonly yes")


def _last_save(info: Info) -> Finding:
    for name in ("rdb_last_bgsave_status", "aof_last_write_status"):
        if info.get(name, "ok") != "ok":
            said = f"the last write to disk failed ({name}): writes are refused"
            return Finding(
                Level.ERROR, "disk", said, "look at the server's disk and log"
            )
    return Finding(Level.OK, "disk", "the last write to disk succeeded")


def _replicas(info: Info) -> Iterator[Finding]:
    for name, value in info.items():
        if re.fullmatch(r"slave\d+", name):
            lag = int((re.findall(r"lag=(\d+)", value) or ["0"])[0])
            said = f"the replica {name} is {lag} s behind"
            if lag <= LAG:
                yield Finding(Level.OK, "replica", said)
            else:
                advice = "a failover now would take back logins and logouts"
                yield Finding(Level.WARNING, "replica", said, advice)
