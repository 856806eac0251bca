"""What a failure of Redis is told as: where the server is, and its own words.

It knows redis-py's connections and errors, and nothing of records.  No password is in
what is told, and no value: the words of servers and drivers repeat neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import SplitResult

from ...errors import StoreError

WORDS = 200
"""Characters that are repeated of what a server says."""


def broken(error: Exception, place: str) -> StoreError:
    """The error that callers are given."""
    words = " ".join(str(error).split())[:WORDS]
    reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return StoreError(f"Redis at {place} failed: {reason}")


def place_of_url(parts: SplitResult) -> str:
    """Where the servers of a url are, without its credentials."""
    hosts = parts.netloc.rpartition("@")[2]
    if parts.scheme == "redis+sentinel":
        return f"sentinels {hosts} (service {parts.path.strip('/').partition('/')[0]})"
    if parts.scheme == "redis+cluster":
        return f"cluster {hosts}"
    return parts.path if parts.scheme == "unix" else hosts or "localhost"


def place_of_pool(pool: Any) -> str:
    """Where the server of a connection pool of redis-py is."""
    told = pool.connection_kwargs
    if "path" in told:
        return str(told["path"])
    if (service := getattr(pool, "service_name", None)) is not None:
        return f"sentinels (service {service})"
    return f"{told.get('host', 'localhost')}:{told.get('port', 6379)}"


def place_of_nodes(nodes: Iterable[Any]) -> str:
    """Where the servers of a cluster are."""
    return "cluster " + ",".join(f"{each.host}:{each.port}" for each in nodes)
