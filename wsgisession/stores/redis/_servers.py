"""How a command reaches Redis: one server, the primary of sentinels, or a cluster.

It knows redis-py's connections and URLs, and nothing of records or scripts.  Nothing here
repeats a command by itself, but for what a cluster sends elsewhere.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import AskError, MovedError, TryAgainError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ...errors import ConfigurationError
from ._failures import place_of_nodes, place_of_pool, place_of_url

IDLE = 1.0
"""Seconds after which an idle connection is asked whether it is still open."""


class Command(NamedTuple):
    """A command, and the key by which a cluster knows whom to ask."""

    key: bytes
    parts: tuple[Any, ...]


class Connections(Protocol):
    """Where a command gets its connection."""

    def take(self) -> Any:
        """A connection that no other thread uses."""

    def give(self, connection: Any) -> None:
        """A connection back, with no answer still to come."""

    def close_idle(self) -> None:
        """Have the next commands make their connections anew."""


class PooledConnections:
    """Those of a pool of redis-py."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def take(self) -> Any:
        return self._pool.get_connection()

    def give(self, connection: Any) -> None:
        self._pool.release(connection)

    def close_idle(self) -> None:
        self._pool.disconnect(inuse_connections=False)


class KeptConnections:
    """Those that a pool of ours made, in a list of our own.

    The pool looks at a connection before each command, which costs a system call.  Here
    only one that was idle for long is looked at: what was asked on a connection that has
    just broken is asked again by the store, as it must be anyway.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._process = os.getpid()
        self._idle: deque[tuple[Any, float]] = deque()

    def take(self) -> Any:
        if self._process != os.getpid():  # a fork: these are the parent's
            self._process, self._idle = os.getpid(), deque()
            self._pool.reset()
        try:
            connection, since = self._idle.pop()
        except IndexError:
            return self._pool.make_connection()
        if time.monotonic() - since > IDLE and _is_spoilt(connection):
            connection.disconnect()
        return connection

    def give(self, connection: Any) -> None:
        self._idle.append((connection, time.monotonic()))

    def close_idle(self) -> None:
        found = []
        while self._idle:
            try:
                found.append(self._idle.pop()[0])
            except IndexError:  # another thread took the last one
                break
        for connection in found:
            connection.disconnect()
            self.give(connection)


class OneServer:
    """A server, or the primary that sentinels name.

    Commands go straight to a connection: the client would repeat them behind our back,
    and might decode what are arbitrary bytes.
    """

    def __init__(self, connections: Connections, place: str) -> None:
        self._connections = connections
        self.place = place

    def run(self, key: bytes, *parts: Any) -> Any:
        return run(self._connections, *parts)

    def run_in_order(self, commands: Sequence[Command]) -> list[Any]:
        """What one command answers after the other; all leave in one packet."""
        return run_together(self._connections, commands)

    def run_in_any_order(self, commands: Sequence[Command]) -> list[Any]:
        """The same, where the order does not matter."""
        return run_together(self._connections, commands)

    def close_idle(self) -> None:
        """Have the next commands make their connections anew."""
        self._connections.close_idle()

    def primaries(self) -> list[Connections]:
        """All servers that hold keys."""
        return [self._connections]


class Cluster:
    """The primaries of a cluster.

    The client is told the node, so that it repeats only what a node has sent elsewhere.
    It is connected at first use: an outage must not keep an application from starting.
    """

    def __init__(self, connect: Callable[[], Any], place: str) -> None:
        self._connect = connect
        self.place = place
        self._client: Any = None

    def run(self, key: bytes, *parts: Any) -> Any:
        client = self._connected()
        node = client.get_node_from_key(key)
        return client.execute_command(*parts, target_nodes=node, NEVER_DECODE=True)

    def run_in_order(self, commands: Sequence[Command]) -> list[Any]:
        """What one command answers after the other; each is sent by itself."""
        return [self.run(each.key, *each.parts) for each in commands]

    def run_in_any_order(self, commands: Sequence[Command]) -> list[Any]:
        """The same, where the order does not matter: one packet for each node."""
        client, answers = self._connected(), dict[int, Any]()
        places = defaultdict(list)
        for place, command in enumerate(commands):
            places[client.get_node_from_key(command.key)].append(place)
        for node, found in places.items():
            some = [commands[place] for place in found]
            pool = client.get_redis_connection(node).connection_pool
            try:
                replies = run_together(PooledConnections(pool), some)
            except (AskError, MovedError, TryAgainError):  # a slot that moves
                replies = self.run_in_order(some)
            answers.update(zip(found, replies, strict=True))
        return [answers[place] for place in range(len(commands))]

    def close_idle(self) -> None:
        """Nothing: the client does so itself."""

    def primaries(self) -> list[Connections]:
        """All servers that hold keys."""
        client = self._connected()
        clients = [client.get_redis_connection(each) for each in client.get_primaries()]
        return [PooledConnections(each.connection_pool) for each in clients]

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client


def run(connections: Connections, *command: Any) -> Any:
    """What a server answers to a command; an error of the server's is raised."""
    connection = connections.take()
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
        connections.give(connection)


def run_together(connections: Connections, commands: Sequence[Command]) -> list[Any]:
    """What a server answers to commands in one packet; the first error is raised."""
    connection = connections.take()
    try:
        packed = connection.pack_commands([each.parts for each in commands])
        connection.send_packed_command([b"".join(packed)])
        return [connection.read_response(disable_decoding=True) for _ in commands]
    except BaseException:
        connection.disconnect()
        raise
    finally:
        connections.give(connection)


def _is_spoilt(connection: Any) -> bool:
    """Whether an idle connection was closed by the server, or has an answer to come."""
    try:
        return bool(connection.can_read())
    except (redis.RedisError, OSError):
        return True


# -- where the servers are -------------------------------------------------------------


def of_client(client: Any) -> OneServer | Cluster:
    """The servers of a client of the caller's."""
    if isinstance(client, RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        return Cluster(lambda: client, place_of_nodes(nodes))
    if isinstance(client, redis.Redis):
        pool = client.connection_pool
        return OneServer(PooledConnections(pool), place_of_pool(pool))
    raise ConfigurationError(
        f"client is a {type(client).__module__}.{type(client).__qualname__}; it must be "
        "a redis.Redis or a redis.cluster.RedisCluster, and not an asynchronous one"
    )


def of_url(url: str, socket_timeout: float) -> OneServer | Cluster:
    """The servers of a url; ``socket_timeout`` in seconds, to connect and for an answer.

    Raises ``ConfigurationError``, which repeats nothing of the url: it may hold a
    password.
    """
    options = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        return _servers(url, options)
    except (TypeError, ValueError):
        # The cause stays out of it: its words may quote a password.
        raise ConfigurationError(
            "the url of a Redis store is not understood; it must be like "
            "redis://user:password@host:6379/0, rediss://host:6379/0, "
            "unix:///path/to/socket?db=0, "
            "redis+sentinel://host:26379,host:26379/service/0 or "
            "redis+cluster://host:6379,host:6379, with options of redis-py after a ?; "
            "of a password, percent-encode every character but letters and digits"
        ) from None


def _split(url: str) -> SplitResult:
    """The parts of a url, unless a character of a password stands where it divides it.

    An ``@`` beside the one before the hosts, or a ``#``, says that a password was not
    percent-encoded; taken as it stands the url would lead to another host.
    """
    if any(each.isspace() or not each.isprintable() or each == "#" for each in url):
        raise ValueError("a character that must be percent-encoded")
    # urlsplit() refuses brackets in a list of hosts: newer Pythons look into them.
    scheme, _, rest = url.partition("://")
    hosts = re.split("[/?]", rest, maxsplit=1)[0]
    parts = urlsplit(f"{scheme}://{rest.removeprefix(hosts)}")._replace(netloc=hosts)
    before = hosts.rpartition("@")[0]
    if "@" in parts.path + parts.query or "[" in before or "]" in before:
        raise ValueError("a password that must be percent-encoded")
    return parts


def _servers(url: str, options: dict[str, Any]) -> OneServer | Cluster:
    parts = _split(url)
    if parts.scheme == "redis+cluster":
        return _cluster(parts, options)
    if parts.scheme == "redis+sentinel":
        pool = _sentinels(parts, options)
        pool.connection_class(**pool.connection_kwargs)  # finds unknown options now
        return OneServer(PooledConnections(pool), place_of_url(parts))
    pool = _pool(url, parts, options)
    pool.connection_class(**pool.connection_kwargs)
    return OneServer(KeptConnections(pool), place_of_url(parts))


def _pool(url: str, parts: SplitResult, options: dict[str, Any]) -> Any:
    path = parts.path.strip("/")
    if parts.scheme == "unix" and not path:
        raise ValueError("no path")
    if parts.scheme != "unix":
        int(path or 0)  # redis-py takes a name for database 0
    return redis.ConnectionPool.from_url(url, **options)


def _sentinels(parts: SplitResult, options: dict[str, Any]) -> Any:
    """The primary's connections.

    The sentinels' own options, their credentials for one, begin with ``sentinel_``.
    """
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service")
    asked = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    own = {
        name.removeprefix("sentinel_"): value
        for name, value in asked
        if name.startswith("sentinel_")
    }
    other = {name: value for name, value in asked if not name.startswith("sentinel_")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        _nodes(parts, 26379), sentinel_kwargs=options | _parsed("", own)
    )
    found = {"db": int(database or 0), **_parsed(_before(parts), other)}
    return SentinelConnectionPool(service, sentinel, **options | found)  # type: ignore[no-untyped-call]


def _cluster(parts: SplitResult, options: dict[str, Any]) -> Cluster:
    if parts.path.strip("/"):
        raise ValueError("a cluster has no databases")
    nodes = [ClusterNode(*node) for node in _nodes(parts, 6379)]  # type: ignore[no-untyped-call]
    found = options | _parsed(_before(parts), dict(parse_qsl(parts.query)))
    return Cluster(
        lambda: RedisCluster(startup_nodes=list(nodes), **found), place_of_url(parts)
    )


def _nodes(parts: SplitResult, port: int) -> list[tuple[str, int]]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    split = [urlsplit(f"//{host}") for host in hosts]
    if not all(each.hostname for each in split):
        raise ValueError("a host without a name")
    return [(str(each.hostname), each.port or port) for each in split]


def _before(parts: SplitResult) -> str:
    """What stands before the hosts: a user and a password."""
    return parts.netloc.rpartition("@")[0]


def _parsed(before: str, options: dict[str, str]) -> dict[str, Any]:
    """Credentials and options as redis-py has them; ``ssl=true`` asks for TLS."""
    options = dict(options)
    tls = options.pop("ssl", "false")
    if tls not in ("true", "false"):
        raise ValueError("ssl is true or false")
    found = parse_url(f"redis://{before}@?{urlencode(options)}")  # type: ignore[no-untyped-call]
    return {**found, "ssl": True} if tls == "true" else dict(found)
