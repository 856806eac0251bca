"""What is wrong around a site though nothing fails, as the log tells it: once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore

from ..conftest import SECRET
from ..pages import shop, warned
from ..tabs import Site

OTHER = "another secret, which nobody has told anybody: 8e1f0ab7c2d94e35"


def other_site_frame(dest: str = "iframe") -> dict[str, str]:
    return {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_SEC_FETCH_DEST": dest}


# -- processes ---------------------------------------------------------------------------


def test_memory_under_several_processes(caplog: pytest.LogCaptureFixture) -> None:
    """Users seem logged out at random there; the line says what to give instead."""
    site = shop()
    for _ in range(3):
        several: Any = {"wsgi.multiprocess": True}
        site.get("read", **several)
    (said,) = warned(caplog)
    assert "several processes" in said
    assert "redis://" in said


@pytest.mark.parametrize("kind", ["file", "one process", "untouched"])
def test_nothing_is_said_where_sessions_are_shared(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files are; one process shares with itself; and an untouched session is none."""
    site = shop(FileStore(tmp_path / "sessions") if kind == "file" else MemoryStore())
    site.handlers["nothing"] = lambda session: None
    page = "nothing" if kind == "untouched" else "read"
    several: Any = {"wsgi.multiprocess": kind != "one process"}
    site.get(page, **several)
    assert warned(caplog) == []


# -- cookies -----------------------------------------------------------------------------


def answering(*headers: tuple[str, str], used: bool = True) -> Callable[..., Any]:
    """An application that sets these headers."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if used:
            get_session(environ).get("n")
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return [b""]

    return application


@pytest.mark.parametrize("name", ["Set-Cookie", "set-cookie"])
def test_an_application_that_sets_our_cookie(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Flask's and Pyramid's sessions under our name: one takes the other's place."""
    application = answering(("X", "sid=1"), (name, "sid=theirs; Path=/"))
    middleware = SessionMiddleware(application, manager=SessionManager(MemoryStore()))
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}
    for _ in range(2):
        middleware(dict(environ), lambda *_: print)
    (said,) = warned(caplog)
    assert "'sid'" in said
    assert "cookie_name" in said


@pytest.mark.parametrize("cookie", ["session=x", "sid2=x", "asid=x"])
def test_an_application_that_sets_other_cookies(
    cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The default name clashes with neither."""
    middleware = SessionMiddleware(
        answering(("Set-Cookie", cookie)), manager=SessionManager(MemoryStore())
    )
    middleware({"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}, lambda *_: print)
    assert warned(caplog) == []


@pytest.mark.parametrize(
    ("secure", "scheme", "forwarded", "is_told"),
    [
        ("auto", "http", "https", True),
        ("auto", "https", "https", False),
        ("auto", "http", "http", False),
        ("auto", "http", None, False),
        (True, "http", "https", False),
        (False, "http", "https", False),
    ],
)
def test_a_proxy_whose_word_the_server_does_not_take(
    secure: Any,
    scheme: str,
    forwarded: str | None,
    is_told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The cookie would leave without Secure, by https; told where it leaves."""
    site = shop(cookie_secure=secure)
    extra = {"wsgi.url_scheme": scheme}
    if forwarded is not None:
        extra["HTTP_X_FORWARDED_PROTO"] = forwarded
    site.get("read", **extra)
    assert warned(caplog) == []
    for _ in range(2):
        site.post("fill", **extra)
    assert ["ProxyFix" in each for each in warned(caplog)] == [True] * is_told


@pytest.mark.parametrize(
    ("options", "extra", "is_told"),
    [
        ({}, other_site_frame(), True),
        ({"cookie_samesite": "Strict"}, other_site_frame("object"), True),
        ({}, other_site_frame("document"), False),
        (
            {},
            {"HTTP_SEC_FETCH_SITE": "same-site", "HTTP_SEC_FETCH_DEST": "iframe"},
            False,
        ),
        (
            {"cookie_samesite": "None", "cookie_secure": True},
            other_site_frame(),
            False,
        ),
        ({}, {}, False),
    ],
)
def test_a_page_in_a_frame_of_another_site(
    options: dict[str, Any],
    extra: dict[str, str],
    is_told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its browser sends no Lax cookie there; the line names the options."""
    site = shop(**options)
    for _ in range(2):
        site.get("read", **extra)
    said = [each for each in warned(caplog) if "cookie_partitioned" in each]
    assert len(said) == is_told


def test_a_frame_that_comes_with_our_cookie_is_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A browser that sends it has let it pass."""
    site = shop()
    cookie = site.begun("fill")
    site.get("read", cookie, **other_site_frame())
    assert warned(caplog) == []


# -- secrets -----------------------------------------------------------------------------


def managed(**settings: Any) -> Callable[[Any], SessionManager]:
    return lambda secret: SessionManager.from_config(secret=secret, **settings)


MANAGERS = {
    "server": managed(type="memory"),
    "cookie": managed(type="cookie"),
    "encrypted cookie": managed(type="cookie", encrypt=True),
}


@pytest.mark.parametrize("kind", MANAGERS)
def test_a_cookie_by_another_secret(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker with another secret, or a new one: one WARNING that says so."""
    site, worker = (
        Site(
            MANAGERS[kind](secret), begin=lambda s: s.update(n=1), read=lambda s: s["n"]
        )
        for secret in (SECRET, OTHER)
    )
    worker.handlers["read"] = lambda session: session.get("n")
    cookie = site.begun("begin")
    for _ in range(3):
        assert worker.get("read", cookie).body == "None"
    (said,) = warned(caplog)
    assert "a secret that this process does not have" in said
    assert "second of the option secret" in said
    assert cookie not in caplog.text


@pytest.mark.parametrize("kind", MANAGERS)
def test_a_cookie_by_an_older_secret_is_well(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it is kept as the second, nothing is said."""
    site = Site(MANAGERS[kind](OTHER), begin=lambda s: s.update(n=1))
    worker = Site(
        MANAGERS[kind]([SECRET, OTHER]), read=lambda session: session.get("n")
    )
    read = worker.get("read", site.begun("begin")).body
    assert read == ("None" if kind == "server" else "1"), "each has a memory of its own"
    assert warned(caplog) == []


@pytest.mark.parametrize("kind", MANAGERS)
@pytest.mark.parametrize("value", ["", "x", "x" * 3000, "A" * 64, "'; --", "%00"])
def test_what_is_no_cookie_of_ours_is_no_warning(
    kind: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Junk comes to every site; it is a line at DEBUG at most."""
    worker = Site(MANAGERS[kind](SECRET), read=lambda session: session.get("n"))
    assert worker.get("read", value).body == "None"
    assert warned(caplog) == []


# -- why a cookie was refused ------------------------------------------------------------


@pytest.mark.parametrize(
    "reason",
    ["malformed", "bad signature", "unknown", "wrong secret", "expired", "ended"],
)
def test_every_refused_cookie_is_a_line_that_says_why(
    reason: str, caplog: pytest.LogCaptureFixture, clock: Any
) -> None:
    """At DEBUG, with the id where it is known, and never with the token."""
    options = {"secret": SECRET} if reason == "bad signature" else {}
    site = shop(clock=clock, **options)
    cookie = site.begun("fill")
    (id,) = [session.id for session in site.manager.sessions()]
    match reason:
        case "malformed":
            cookie = "???"
        case "bad signature":
            cookie = cookie[:-5] + "AAAA" + cookie[-1]
        case "unknown":
            site.manager.end(id)
        case "wrong secret":
            cookie = cookie[:30] + "AAAA" + cookie[34:]
        case "expired":
            clock.pass_by(40 * 86400)
        case "ended":
            site.post("ann", cookie)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "wsgisession"):
        assert site.get("cart", cookie).body == "None"
    (line,) = [each for each in caplog.messages if "refused" in each]
    assert line.endswith(f"refused: {reason}")
    assert (id in line) is (reason not in ("malformed", "bad signature"))
    assert cookie not in caplog.text


# -- waiting for nothing -----------------------------------------------------------------


def waited(site: Site, cookie: str, page: str) -> None:
    """A post to a page, made while another request holds the lock for a while."""
    session = site.manager.open(cookie, locking=True)
    session.get("n")
    threading.Timer(0.6, session.unlock).start()
    site.post(page, cookie)


@pytest.mark.parametrize(("page", "is_told"), [("read", True), ("increment", False)])
def test_a_post_that_waited_and_wrote_nothing(
    page: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """GraphQL and JSON-RPC read by POST: the line names the path and the option."""
    site = shop()
    cookie = site.begun("increment")
    for _ in range(2):
        waited(site, cookie, page)
    said = warned(caplog)
    assert ["'/read'" in each and "locking" in each for each in said] == [
        True
    ] * is_told


def test_a_post_that_did_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    """The control: it may read as it likes."""
    site = shop()
    site.post("read", site.begun("increment"))
    assert warned(caplog) == []
