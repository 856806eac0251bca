"""P1 in every framework under real servers: four processes, 16 clients, 800 of 800."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..conftest import missing
from ..servers import CLIENTS, TIMES, count, gunicorn, press, uvicorn
from .counters import FRAMEWORKS

LOSS = "could be neither locked nor run again"

STORES = ("file", "redis", "sqlite")

EVERY = [(framework, store) for framework in FRAMEWORKS for store in STORES]
SOME = [(f, STORES[n % len(STORES)]) for n, f in enumerate(FRAMEWORKS)]
"""Each framework on one of the stores, and each store under one of the frameworks."""

PAIRS = EVERY if os.environ.get("LONG_TESTS") else SOME


def url_of(store: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if store == "redis":
        return str(request.getfixturevalue("redis_url"))
    return {
        "file": f"file://{folder}/sessions",
        "sqlite": f"sqlite:///{folder}/sessions.db",
    }[store]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, Path]]:
    """A framework's application under gunicorn: the port, and the log."""
    framework, store = request.param
    if framework != "beaker" and find_spec(framework) is None:
        missing(framework)
    pytest.importorskip("gunicorn")
    folder = tmp_path_factory.mktemp(f"{framework}-{store}")
    url, log = url_of(store, folder, request), folder / "log"
    app = "tests.integrations.counters:application"
    with gunicorn(url, log, app, FRAMEWORK=framework) as port:
        yield port, log


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_increment_is_lost(served: tuple[int, Path], method: str) -> None:
    """Behind the framework's own door, put there by the adapter."""
    port, log = served
    cookie = press(port, method, "/increment", lambda *_: {"key": method})
    assert count(port, cookie, method) == CLIENTS * TIMES
    assert LOSS not in log.read_text()


@pytest.mark.parametrize("path", ["/increment", "/aincrement"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_increment_is_lost_under_asgi(
    asgi_port: int, path: str, method: str
) -> None:
    """Django under uvicorn, by views of both kinds."""
    if path == "/aincrement":
        import django

        if django.VERSION < (5, 1):
            pytest.skip("Django's sessions are asynchronous since 5.1")
    cookie = press(asgi_port, method, path, lambda *_: {"key": "n"})
    assert count(asgi_port, cookie, "n") == CLIENTS * TIMES


@pytest.fixture(scope="module")
def asgi_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    for module in ("django", "uvicorn"):
        if find_spec(module) is None:
            missing(module)
    folder = tmp_path_factory.mktemp("asgi")
    app = "tests.integrations.django_site:asgi_application"
    with uvicorn(f"file://{folder}/sessions", folder / "log", app) as port:
        yield port
