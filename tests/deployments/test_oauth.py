"""A login by OAuth with real Authlib, while another tab writes into the same session.

A provider's code is good for one use: the view that spends it must not run twice, and the
answer must not lose what the other tab wrote.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from wsgisession import Session, SessionManager
from wsgisession.stores.memory import MemoryStore

from ..tabs import Site

requests_client = pytest.importorskip("authlib.integrations.requests_client")

WHO = {"client_id": "shop", "client_secret": "between us", "scope": "openid"}


class Provider:
    """Gives a token for a code, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ["CONTENT_LENGTH"])
        form = parse_qs(environ["wsgi.input"].read(length).decode())
        self.asked.append(form["code"][0])
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"access_token": "a", "token_type": "Bearer"}).encode()]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    with make_server("127.0.0.1", 0, found, handler_class=Quiet) as server:  # type: ignore[arg-type]
        found.url = f"http://127.0.0.1:{server.server_port}/token"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@contextmanager
def shop(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose users log in at the provider; ``between`` runs in the callback."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # the loopback interface
    manager = SessionManager(MemoryStore())
    between: list[Any] = []

    def client(**more: Any) -> Any:
        return requests_client.OAuth2Session(**WHO, **more)

    def begin(session: Session) -> str:
        with client(redirect_uri="https://shop.example/callback") as made:
            _, session["state"] = made.create_authorization_url(
                "https://p.example/auth"
            )
        session["cart"] = []
        return str(session["state"])

    def callback(session: Session) -> None:
        values = dict(session)  # as Authlib's integrations look for the state
        for step in between:
            step()
        between.clear()
        with client(state=values["state"]) as made:
            made.fetch_token(provider.url, code="once", grant_type="authorization_code")
        del session["state"]
        session["token"] = "a"

    site = Site(
        manager,
        begin=begin,
        callback=callback,
        add=lambda session: session["cart"].append("book"),
        all=lambda session: sorted(session.items()),
    )
    site.between = between  # type: ignore[attr-defined]
    yield site


@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    ("query", "asked"),
    [("code=once&state=s", 1), ("ticket=once&check=s", 2)],
    ids=["an OAuth answer", "the control: no such answer, and run again"],
)
def test_a_callback_beside_another_tab(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, query: str, asked: int
) -> None:
    """One token request, and the book stays in the cart; the other tab waits for it."""
    with shop(provider, monkeypatch) as site:
        cookie = site.begun("begin")
        other = threading.Thread(target=site.get, args=("add", cookie))

        def another_tab() -> None:
            other.start()
            if asked == 1:
                other.join(0.5)
                assert other.is_alive(), "it writes, and waits for the lock"
            else:
                other.join()

        site.between.append(another_tab)  # type: ignore[attr-defined]
        extra = {"QUERY_STRING": query, "HTTP_SEC_FETCH_SITE": "same-origin"}
        answer = site.get("callback", cookie, **extra)
        other.join()
        assert answer.status == "200 OK"
        assert provider.asked == ["once"] * asked
        assert site.get("all", cookie).body == "[('cart', ['book']), ('token', 'a')]"
