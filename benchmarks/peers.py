"""What a session costs here and in other libraries, beside the raw client, in one run.

    python -m benchmarks.peers redis://localhost/0 postgresql+psycopg://me@host/name
    python -m benchmarks.peers --out docs redis://localhost/0

One process calls all of them.  A round has a short block of every contestant, in shuffled
order, so that whatever else the machine does meets all alike.  A cost is what a request
takes more than the same application without a session; the quotient by the raw client is
taken within a round, and the table gives its median and quartiles.  Before it is measured
a contestant has to count from 1 to 3, and its session has to be found in the store that
it stands for.  What is not installed is left out, with a line that says so.

With ``--out`` the tables and a plot are written to ``benchmarks.rst`` and
``benchmarks.svg`` in that folder.  Sessions and tables are left behind: give databases
that are there for this alone.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
import statistics
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from benchmarks.beside import BLOCK
from benchmarks.contestants import (
    App,
    Contestant,
    Handler,
    begin,
    change,
    nothing,
    of_beaker,
    of_django,
    of_flask,
    of_flask_session,
    of_pyramid,
    of_pyramid_session_redis,
    ours,
    read,
)
from benchmarks.plot import draw
from benchmarks.sessions import Config, Limit, configs, limits
from benchmarks.visits import Work, cookie_of, made, request, seconds
from wsgisession.errors import ConfigurationError

KINDS: Mapping[str, tuple[str, Handler]] = {
    "untouched": ("GET", nothing),
    "read": ("GET", read),
    "change": ("POST", change),
    "new": ("GET", begin),
}

LONGEST_ID = 200
"""A cookie that is longer holds the values, and not only an id."""

PACKAGES = ("wsgisession-middleware", "msgspec", "itsdangerous", "Beaker")
PACKAGES += ("Flask-Session", "cachelib", "Flask-SQLAlchemy", "Flask", "Django")
PACKAGES += ("pyramid", "pyramid-session-redis", "redis", "hiredis", "SQLAlchemy")
PACKAGES += ("psycopg",)

HEAD = """\
Benchmarks
==========

What a session costs, in microseconds a request, and as a multiple of what the raw client
of the same store takes for the same values: one GET and the JSON in redis-py, one SELECT
in the driver, and so on.  The raw client neither locks nor moves a clock.

Measured on {day} with Python {python} on {system}, {rounds} rounds, by::

    python -m benchmarks.peers --rounds {rounds} --out docs {urls}

{versions}

All contestants run in one process, in shuffled blocks.  What the framework does besides
is taken away.  The microseconds are the median of the rounds; after each multiple stand
its quartiles.  Compare the multiples, and not the microseconds: those are of one machine.
Every library has its defaults, except that Beaker saves by itself (``auto``), and that
cachelib, where Flask-Session keeps its files, does not limit their number.
"""

PLOT = """
.. image:: benchmarks.svg
   :alt: The cost of a session in each library, as multiples of the raw client.
"""

FOOT = """
untouched
    Leaves the session alone; a raw client has nothing to do.
read
    Reads one value.
change
    By POST, reads a value and writes another in its place.
new
    Begins a session.
locks
    A change is made under a lock, and no update is lost.
slides
    Reading counts as activity, and moves the idle clock.  wsgisession moves it at most
    once in ``touch_interval``, 60 s, and that read asks the store once more.
"""

OF_SQLITE = """
The multiples are of the raw client in WAL mode, which wsgisession sets.  The others leave
SQLite at its default, the rollback journal, where each write waits longer for the disk.
"""


class Line(NamedTuple):
    """What is to be measured: a contestant, or a raw client."""

    name: str
    store: str
    kind: str
    work: Work
    bare: Work | None
    """The same without a session."""
    limit: Work | None
    """The raw client, if it does such a thing."""


class Result(NamedTuple):
    """What was measured."""

    name: str
    store: str
    kind: str
    micros: float
    times: tuple[float, float, float] | None
    """First quartile, median and third quartile of the multiples of the raw client."""


# -- who takes part ----------------------------------------------------------------------


def installed(urls: Mapping[str, str], folder: Path) -> Iterator[Contestant]:
    """All that are installed, each made when it is asked for."""
    for source in sources(urls, folder):
        try:
            yield from source()
        except ImportError as error:
            leave_out(error)


def sources(
    urls: Mapping[str, str], folder: Path
) -> Iterator[Callable[[], Iterable[Contestant]]]:
    """One for each package that may be missing."""
    for store, config in configs(list(urls.values()), folder, "ours").items():
        yield partial(of_ours, store, config)
    yield partial(of_beaker, urls, folder)
    yield partial(of_flask_session, urls, folder)
    yield partial(of_django, urls, folder)
    yield partial(of_pyramid_session_redis, urls)
    yield of_flask
    yield of_pyramid


def of_ours(store: str, config: Config) -> Iterable[Contestant]:
    """Ours on one store."""
    try:
        return [ours(store, config)]
    except ConfigurationError as error:
        if isinstance(error.__cause__, ImportError):
            raise ImportError(str(error)) from error
        raise


def raw_clients(store: str, urls: Mapping[str, str], folder: Path) -> dict[str, Limit]:
    """The raw clients of a store by their names; the last is what multiples are of."""
    config = {"url": urls[store]} if store in urls else {}
    try:
        return dict(limits(store, config, folder))
    except ImportError as error:
        leave_out(error)
        return {}


def leave_out(why: object) -> None:
    """Say what is missing."""
    print(f"left out: {why}", file=sys.stderr)


# -- the proof ---------------------------------------------------------------------------


def prove(contestant: Contestant, url: str | None, folder: Path) -> str:
    """The cookie of a new session; another one counted to 3 in the right store."""
    before = written(contestant.store, url, folder)
    cookie = cookie_of(contestant.site(begin))
    if contestant.store == "cookie":
        is_there = len(cookie) > LONGEST_ID
    else:
        is_there = before is None or before != written(contestant.store, url, folder)
    if not is_there:
        raise SystemExit(f"{contestant.name} keeps nothing in {contestant.store}")
    for expected in (2, 3):
        seen: list[object] = []

        def count(session: object, seen: list[object] = seen) -> None:
            change(session)
            seen.append(read(session))

        cookie = _visit(contestant.site(count), cookie)
        if seen != [expected]:
            raise SystemExit(
                f"{contestant.name} on {contestant.store}: {seen}, not {expected}"
            )
    return cookie_of(contestant.site(begin))


def written(store: str, url: str | None, folder: Path) -> object:
    """What a new session in the store makes different; None where nobody looks."""
    match store:
        case "file":
            files = (path for path in folder.rglob("*") if path.is_file())
            return {path for path in files if ".db" not in path.name}
        case "sqlite":
            found = ((path, path.stat()) for path in folder.rglob("*.db*"))
            return {(path, stat.st_mtime_ns, stat.st_size) for path, stat in found}
        case "redis" if url is not None:
            import redis

            return redis.Redis.from_url(url).dbsize()
    return None


def _visit(app: App, cookie: str) -> str:
    """The cookie after a visit, which may be another one."""
    sent: list[tuple[str, str]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        sent.extend(headers)

    body = app(made("POST", cookie), start_response)
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()
    found = [value for name, value in sent if name.lower() == "set-cookie"]
    return found[-1].partition(";")[0] if found else cookie


# -- measuring ---------------------------------------------------------------------------


def lines_of(contestant: Contestant, cookie: str, limit: Limit) -> Iterator[Line]:
    """A request of each kind to a contestant."""
    for kind, (method, handler) in KINDS.items():
        sent = "" if kind == "new" else cookie
        yield Line(
            name=contestant.name,
            store=contestant.store,
            kind=kind,
            work=request(contestant.site(handler), method, sent),
            bare=request(contestant.bare, method, sent),
            limit=limit.get(kind),
        )


def prepare(
    found: Iterable[Contestant], urls: Mapping[str, str], folder: Path
) -> tuple[list[Contestant], list[Line]]:
    """Those that take part, and what is measured of them and of the raw clients.

    All sites of a contestant are made before the next contestant is asked for: Django's
    middleware takes its engine from the settings, and there is one of those.
    """
    proven: list[Contestant] = []
    every: list[Line] = []
    raw: dict[str, dict[str, Limit]] = {}
    for each in found:
        url = urls.get(each.store)
        try:
            cookie = prove(each, url, folder)
        except ImportError as error:
            leave_out(error)
            continue
        if each.store not in raw:
            raw[each.store] = raw_clients(each.store, urls, folder)
        limit = [{}, *raw[each.store].values()][-1]
        proven.append(each)
        every.extend(lines_of(each, cookie, limit))
    for store, known in raw.items():
        every += [
            Line(f"raw client, {title}", store, kind, work, None, None)
            for title, limit in known.items()
            for kind, work in limit.items()
        ]
    return proven, every


def measure(every: Sequence[Line], rounds: int) -> Iterator[Result]:
    """A result for each line."""
    spent = time_all(every, rounds)
    for each in every:
        off = [0.0] * rounds if each.bare is None else spent[each.bare]
        costs = [work - bare for work, bare in zip(spent[each.work], off, strict=True)]
        quotients = None
        if each.limit is not None:
            pairs = zip(costs, spent[each.limit], strict=True)
            first, middle, third = statistics.quantiles(
                (c / raw for c, raw in pairs), n=4
            )
            quotients = (first, middle, third)
        micros = statistics.median(costs) * 1e6
        yield Result(each.name, each.store, each.kind, micros, quotients)


def time_all(every: Sequence[Line], rounds: int) -> dict[Work, list[float]]:
    """The seconds of a call in each round, by what was called."""
    found = (work for each in every for work in (each.work, each.bare))
    works = list(dict.fromkeys(work for work in found if work is not None))
    times = {
        work: max(1, int(BLOCK / min(seconds(work, 3) for _ in range(3))))
        for work in works
    }
    spent: dict[Work, list[float]] = {work: [] for work in works}
    gc.disable()
    for _ in range(rounds):
        for work in random.sample(works, len(works)):
            work()  # The first that waits for the disk waits for what others wrote.
            spent[work].append(seconds(work, times[work]))
        gc.collect()
    gc.enable()
    return spent


# -- the page ----------------------------------------------------------------------------


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in reStructuredText."""
    found = ["", f".. list-table:: {title}", "   :header-rows: 1", ""]
    for first, *rest in (head, *rows):
        found.append(f"   * - {first}".rstrip())
        found += [f"     - {cell}" for cell in rest]
    return "\n".join([*found, ""])


def table_of_store(results: Sequence[Result], store: str) -> str:
    """What everybody costs on one store."""
    told = {(e.name, e.kind): tell(e) for e in results if e.store == store}
    names = dict.fromkeys(name for name, _ in told)
    rows = [[name, *(told.get((name, kind), "-") for kind in KINDS)] for name in names]
    return table(store, ["", *KINDS], rows)


def tell(result: Result) -> str:
    """Microseconds, the multiple, and its quartiles."""
    if result.times is None:
        return f"{max(0.0, result.micros):.1f} µs"
    first, middle, third = result.times
    return f"{result.micros:.0f} µs, {middle:.2f} ({first:.2f} to {third:.2f})"


def table_of_habits(found: Sequence[Contestant]) -> str:
    """Which library locks, and which slides."""
    rows = []
    for name in dict.fromkeys(each.name for each in found):
        of_name = [each for each in found if each.name == name]
        locks = [each.store for each in of_name if each.locks]
        slides = [each.store for each in of_name if each.slides]
        stores = [each.store for each in of_name]
        rows.append([name, _in_words(locks, stores), _in_words(slides, stores)])
    return table("locks and clocks", ["", "locks", "slides"], rows)


def _in_words(stores: Sequence[str], of_all: Sequence[str]) -> str:
    others = [store for store in of_all if store not in stores]
    if not stores or not others:
        return "yes" if stores else "no"
    return f"yes, but not on {', '.join(others)}"


def page(
    results: Sequence[Result], found: Sequence[Contestant], head: str, *, has_plot: bool
) -> str:
    """All of it, in reStructuredText."""
    parts = [head, PLOT if has_plot else ""]
    for store in dict.fromkeys(each.store for each in found):
        parts.append(table_of_store(results, store))
        parts.append(OF_SQLITE if store == "sqlite" else "")
    parts += [FOOT, table_of_habits(found)]
    return "".join(parts)


def heading(urls: Sequence[str], rounds: int) -> str:
    """How it was measured."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return HEAD.format(
        day=date.today().isoformat(),
        python=platform.python_version(),
        system=f"{platform.system()}, {platform.machine()}",
        rounds=rounds,
        urls=" ".join(f"{url.partition('://')[0]}://..." for url in urls),
        versions=textwrap.fill(
            ", ".join(versions) + ".", width=90, break_on_hyphens=False
        ),
    )


def plotted(results: Sequence[Result], path: Path) -> bool:
    """Whether there is a plot now; it needs matplotlib."""
    bars = [
        (each.store, each.kind, each.name, each.times)
        for each in results
        if each.times is not None
    ]
    try:
        draw(bars, path)
    except ImportError as error:
        leave_out(error)
        return False
    return True


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="*", help="of Redis and PostgreSQL")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, help="a folder for the page and the plot")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peers
    urls = {url.partition(":")[0].partition("+")[0]: url for url in given.urls}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
        folder = Path(room)
        found, every = prepare(installed(urls, folder), urls, folder)
        results = list(measure(every, given.rounds))
    head = heading(given.urls, given.rounds)
    if given.out is None:
        sys.stdout.write(page(results, found, head, has_plot=False))
        return
    has_plot = plotted(results, given.out / "benchmarks.svg")
    text = page(results, found, head, has_plot=has_plot)
    (given.out / "benchmarks.rst").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
