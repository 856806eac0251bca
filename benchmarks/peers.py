"""What a session costs here and in other libraries, beside the raw client, in one run.

    python -m benchmarks.peers redis://localhost/0 postgresql+psycopg://me@host/name
    python -m benchmarks.peers --out docs redis://localhost/0

One process calls all of them.  A round has a short block of every contestant, in shuffled
order, so that whatever else the machine does meets all alike.  A cost is what a request
takes more than the same application without a session; the quotient by the raw client is
taken within a round, and the table gives its median and quartiles.  Before it is measured
a contestant has to count from 1 to 3.  With ``--out`` the table and a plot are written to
``benchmarks.rst`` and ``pictures/benchmarks.svg`` in that folder.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
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
    contestants,
    nothing,
    read,
)
from benchmarks.plot import draw
from benchmarks.sessions import Limit, limits
from benchmarks.visits import Work, cookie_of, made, request, seconds

KINDS: Mapping[str, tuple[str, Handler]] = {
    "untouched": ("GET", nothing),
    "read": ("GET", read),
    "change": ("POST", change),
    "new": ("GET", begin),
}

PACKAGES = ("wsgisession-middleware", "Beaker", "Flask-Session", "Flask", "Django")
PACKAGES += ("pyramid", "pyramid-session-redis", "redis", "SQLAlchemy")

HEAD = """\
Benchmarks
==========

What a session costs, in microseconds a request, and as a multiple of what the raw client
of the same store takes for the same values: one GET and the JSON in redis-py, one SELECT
in the driver, and so on.  The raw client neither locks nor moves a clock.

Measured on {day} with Python {python} on {system}, {rounds} rounds, by::

    python -m benchmarks.peers --out docs {urls}

All contestants run in one process, in shuffled blocks.  What the framework does besides
is taken away.  After each multiple stand its quartiles.  Compare the multiples, and not
the microseconds: those are of one machine.  {versions}

.. image:: pictures/benchmarks.svg
   :alt: The cost of a session in each library, as multiples of the raw client.

"""


class Result(NamedTuple):
    """What was measured of a contestant and a kind of request."""

    contestant: Contestant
    kind: str
    micros: float
    times: tuple[float, float, float] | None
    """First quartile, median and third quartile of the multiples of the raw client."""


class Line(NamedTuple):
    """What is to be measured."""

    contestant: Contestant
    kind: str
    work: Work
    bare: Work
    limit: Work | None


def prove(contestant: Contestant) -> str:
    """The cookie of a new session, of one that has counted to 3 before."""
    cookie = cookie_of(contestant.site(begin))
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


def lines(
    found: Sequence[Contestant], urls: Mapping[str, str], folder: Path
) -> list[Line]:
    """What is measured of all contestants, and the raw clients beside."""
    raw: dict[str, Limit] = {}
    for store in dict.fromkeys(each.store for each in found):
        config = {"url": urls[store]} if store in urls else {}
        known = dict(limits(store, config, folder))
        raw[store] = known.get("sqlite (WAL)") or known[store]
    every = []
    for each in found:
        known = prove(each)
        for kind, (method, handler) in KINDS.items():
            cookie = "" if kind == "new" else known
            work = request(each.site(handler), method, cookie)
            bare = request(each.bare, method, cookie)
            every.append(Line(each, kind, work, bare, raw[each.store].get(kind)))
    return every


def measure(every: Sequence[Line], rounds: int) -> Iterator[Result]:
    """A result for each line."""
    works = list(
        dict.fromkeys(
            work
            for each in every
            for work in (each.work, each.bare, each.limit)
            if work
        )
    )
    times = {work: max(1, int(BLOCK / seconds(work, 5))) for work in works}
    spent: dict[Work, list[float]] = {work: [] for work in works}
    gc.disable()
    for _ in range(rounds):
        for work in random.sample(works, len(works)):
            spent[work].append(seconds(work, times[work]))
        gc.collect()
    gc.enable()
    for each in every:
        rows = list(zip(spent[each.work], spent[each.bare], strict=True))
        micros = statistics.median(work - bare for work, bare in rows) * 1e6
        quotients = None
        if each.limit is not None:
            pairs = zip(rows, spent[each.limit], strict=True)
            all_of_them = [(work - bare) / raw for (work, bare), raw in pairs]
            first, middle, third = statistics.quantiles(all_of_them, n=4)
            quotients = (first, middle, third)
        yield Result(each.contestant, each.kind, micros, quotients)


# -- the page ----------------------------------------------------------------------------


def table(results: Sequence[Result], store: str) -> Iterator[str]:
    """The lines of the table of one store."""
    kinds = [kind for kind in KINDS if kind != "untouched"]
    of_store = [each for each in results if each.contestant.store == store]
    yield f".. list-table:: {store}"
    yield "   :header-rows: 1"
    yield ""
    yield from _row("", *kinds, "locks", "slides")
    for contestant in dict.fromkeys(each.contestant for each in of_store):
        found = {e.kind: told(e) for e in of_store if e.contestant == contestant}
        has = ["yes" if it else "no" for it in (contestant.locks, contestant.slides)]
        yield from _row(contestant.name, *(found[kind] for kind in kinds), *has)


def _row(first: str, *rest: str) -> Iterator[str]:
    yield f"   * - {first}"
    for cell in rest:
        yield f"     - {cell}"


def told(result: Result) -> str:
    """Microseconds, the multiple, and its quartiles."""
    if result.times is None:
        return f"{result.micros:.1f}"
    first, middle, third = result.times
    return f"{result.micros:.0f} µs, {middle:.2f} ({first:.2f} to {third:.2f})"


def untouched(results: Sequence[Result]) -> Iterator[str]:
    """What a request costs that leaves its session alone."""
    yield "A request that leaves its session alone, in microseconds: "
    found = [each for each in results if each.kind == "untouched"]
    best: dict[str, float] = {}
    for each in found:
        name = each.contestant.name
        best[name] = min(each.micros, best.get(name, each.micros))
    said = [f"{name} {max(0.0, micros):.1f}" for name, micros in best.items()]
    yield ", ".join(said) + ".  (Where a library has several stores, the lowest.)"


def page(results: Sequence[Result], urls: Sequence[str], rounds: int) -> str:
    """All of it, in reStructuredText."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    head = HEAD.format(
        day=date.today().isoformat(),
        python=platform.python_version(),
        system=f"{platform.system()}, {platform.machine()}",
        rounds=rounds,
        urls=" ".join(f"{url.partition('://')[0]}://..." for url in urls),
        versions=", ".join(versions) + ".",
    )
    parts = [head]
    for store in dict.fromkeys(each.contestant.store for each in results):
        parts += ["\n".join(table(results, store)), ""]
    parts += [
        "locks: a change is made under a lock, and no update is lost.",
        "slides: reading counts as activity at the server.",
        "",
        "".join(untouched(results)),
        "",
    ]
    return "\n".join(parts)


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
        every = lines(list(contestants(urls, folder)), urls, folder)
        results = list(measure(every, given.rounds))
    text = page(results, given.urls, given.rounds)
    if given.out is None:
        sys.stdout.write(text)
        return
    (given.out / "benchmarks.rst").write_text(text)
    bars = [
        (each.contestant.store, each.kind, each.contestant.name, each.times)
        for each in results
        if each.times is not None
    ]
    draw(bars, given.out / "pictures" / "benchmarks.svg")


if __name__ == "__main__":
    main()
