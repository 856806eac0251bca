"""How a command reaches Redis: one server, the primary of sentinels, or a cluster.

It knows redis-py's connections and URLs, and nothing of records or scripts.  Nothing here
repeats a command by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ..errors import ConfigurationError


class Single:
    """A server, or the primary that sentinels name.

    Commands go straight to a connection: the client would repeat them behind our back,
    and might decode what are arbitrary bytes.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def run(self, *command: Any, at: bytes) -> Any:
        return run(self._pool, *command)

    def pools(self) -> list[Any]:
        return [self._pool]


class Cluster:
    """The primaries of a cluster.

    The client is told the node, so that it repeats only what a node has sent elsewhere.
    It is connected at first use: an outage must not keep an application from starting.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._client: Any = None

    def run(self, *command: Any, at: bytes) -> Any:
        client = self._connected()
        node = client.get_node_from_key(at)
        return client.execute_command(*command, target_nodes=node, NEVER_DECODE=True)

    def pools(self) -> list[Any]:
        nodes = self._connected().get_primaries()
        return [node.redis_connection.connection_pool for node in nodes]

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client


def run(pool: Any, *command: Any) -> Any:
    connection = pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)
    except BaseException:
        # An answer that is still to come, perhaps after the timeout of a greenlet, must
        # not be taken for the answer to the next question; and a primary that has become
        # a replica is left.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def of_client(client: Any) -> Single | Cluster:
    if isinstance(client, RedisCluster):
        return Cluster(lambda: client)
    if isinstance(client, redis.Redis):
        return Single(client.connection_pool)
    raise ConfigurationError(
        f"client is a {type(client).__module__}.{type(client).__qualname__}; it must be "
        "a redis.Redis or a redis.cluster.RedisCluster, and not an asynchronous one"
    )


def of_url(url: str, timeout: float) -> Single | Cluster:
    options = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        parts = urlsplit(url)
        if parts.scheme == "redis+cluster":
            return _cluster(parts, options)
        pool = (
            _sentinels(parts, options)
            if parts.scheme == "redis+sentinel"
            else _pool(url, parts, options)
        )
        pool.connection_class(**pool.connection_kwargs)  # finds unknown options now
    except (TypeError, ValueError):
        # The cause stays out of it: its words may quote a password.
        raise ConfigurationError(
            "the url of a Redis store is not understood; it must be like "
            "redis://user:password@host:6379/0, rediss://host:6379/0, "
            "unix:///path/to/socket?db=0, "
            "redis+sentinel://host:26379,host:26379/service/0 or "
            "redis+cluster://host:6379,host:6379, with options of redis-py after a ?"
        ) from None
    return Single(pool)


def _pool(url: str, parts: SplitResult, options: dict[str, Any]) -> Any:
    path = parts.path.strip("/")
    if parts.scheme == "unix" and not path:
        raise ValueError("no path")
    if parts.scheme != "unix":
        int(path or 0)  # redis-py takes a name for database 0
    return redis.ConnectionPool.from_url(url, **options)


def _sentinels(parts: SplitResult, options: dict[str, Any]) -> Any:
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service")
    sentinel = Sentinel(_nodes(parts, 26379), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    found = {"db": int(database or 0), **_parsed(parts)}
    return SentinelConnectionPool(service, sentinel, **options | found)  # type: ignore[no-untyped-call]


def _cluster(parts: SplitResult, options: dict[str, Any]) -> Cluster:
    if parts.path.strip("/"):
        raise ValueError("a cluster has no databases")
    nodes = [ClusterNode(*node) for node in _nodes(parts, 6379)]  # type: ignore[no-untyped-call]
    found = options | _parsed(parts)
    return Cluster(lambda: RedisCluster(startup_nodes=list(nodes), **found))


def _nodes(parts: SplitResult, port: int) -> list[tuple[str, int]]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    split = [urlsplit(f"//{host}") for host in hosts]
    if not all(each.hostname for each in split):
        raise ValueError("a host without a name")
    return [(str(each.hostname), each.port or port) for each in split]


def _parsed(parts: SplitResult) -> dict[str, Any]:
    """What stands before the hosts and after the question mark."""
    before = parts.netloc.rpartition("@")[0]
    return dict(parse_url(f"redis://{before}@?{parts.query}"))  # type: ignore[no-untyped-call]
