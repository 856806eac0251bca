"""A login by OAuth with Authlib's own clients for Flask and Django, while another tab
writes: one token request, logged in, and nothing of the other tab is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from wsgisession.stores.memory import MemoryStore

from ..conftest import missing
from ..deployments.test_oauth import Provider, provider

try:
    from authlib.integrations.django_client import OAuth as DjangoOAuth
    from authlib.integrations.flask_client import OAuth as FlaskOAuth
    from flask import Flask, session

    from . import django_site
except ImportError:
    missing("Authlib, Flask or Django")

from django.test import Client
from django.test.utils import override_settings

from wsgisession.integrations.flask import Sessions

__all__ = ["provider"]

CALLBACK = "https://shop.example/callback"

AT_PROVIDER = {
    "client_id": "shop",
    "client_secret": "between us",
    "authorize_url": "https://provider.example/authorize",
}

Ask = Callable[[str, str], Any]
"""A request of one browser: the method, and the path."""


def callback_beside_another_tab(
    ask: Ask, other_tab: Ask, between: list[Callable[[], None]]
) -> None:
    """The provider sends the browser back, and the other tab posts in the middle."""
    ask("POST", "/add")
    location = ask("GET", "/begin").headers["Location"]
    (state,) = parse_qs(urlsplit(location).query)["state"]
    other = threading.Thread(target=other_tab, args=("POST", "/add"))

    def write() -> None:
        other.start()
        other.join(0.3)
        assert other.is_alive(), "it writes, and waits for the lock"

    between.append(write)
    answer = ask("GET", f"/callback?code=once&state={state}")
    other.join(30)
    assert answer.status_code == 200


def seen_by(between: list[Callable[[], None]]) -> None:
    """What the callback lets happen once it has looked at its session."""
    while between:
        between.pop()()


def test_by_flask(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # the loopback interface
    between: list[Callable[[], None]] = []
    app = Flask(__name__)
    Sessions(app, store=MemoryStore())
    oauth = FlaskOAuth(app)
    oauth.register("shop", access_token_url=provider.url, **AT_PROVIDER)

    @app.get("/begin")
    def begin() -> Any:
        return oauth.shop.authorize_redirect(CALLBACK)

    @app.get("/callback")
    def callback() -> str:
        assert session["cart"]
        seen_by(between)
        session["token"] = oauth.shop.authorize_access_token()["access_token"]
        return "in"

    @app.post("/add")
    def add() -> str:
        session.setdefault("cart", []).append("book")
        return "added"

    @app.get("/all")
    def everything() -> str:
        return str(sorted(session.items()))

    client, tab = app.test_client(), app.test_client()

    def ask(method: str, path: str) -> Any:
        return client.open(path, method=method)

    def other_tab(method: str, path: str) -> Any:
        tab.set_cookie("session", client.get_cookie("session").value)
        return tab.open(path, method=method)

    callback_beside_another_tab(ask, other_tab, between)
    assert provider.asked == ["once"]
    assert ask("GET", "/all").text == "[('cart', ['book', 'book']), ('token', 'a')]"


def test_by_django(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    between: list[Callable[[], None]] = []
    oauth = DjangoOAuth()
    oauth.register("shop", access_token_url=provider.url, **AT_PROVIDER)

    def step(request: Any) -> Any:
        values = request.session
        if request.GET.get("do") == "begin":
            return oauth.shop.authorize_redirect(request, CALLBACK)
        if request.GET.get("do") == "add":
            values["cart"] = [*values.get("cart", []), "book"]
        elif "code" in request.GET:
            assert values["cart"]
            seen_by(between)
            token = oauth.shop.authorize_access_token(request)
            values["token"] = token["access_token"]
        return sorted(values.items())

    client, tab = Client(), Client()

    def asked_by(browser: Any) -> Ask:
        def ask(method: str, path: str) -> Any:
            page, _, query = path.strip("/").partition("?")
            browser.cookies = (
                client.cookies.copy() if browser is tab else browser.cookies
            )
            return browser.generic(method, f"/step?do={page}&{query}")

        return ask

    with override_settings(WSGISESSION={"store": MemoryStore()}):
        django_site.HOOKS["step"] = step
        callback_beside_another_tab(asked_by(client), asked_by(tab), between)
        django_site.HOOKS.clear()
        assert provider.asked == ["once"]
        django_site.HOOKS["step"] = step
        kept = asked_by(client)("GET", "/all").content.decode()
        django_site.HOOKS.clear()
    assert kept == "[('cart', ['book', 'book']), ('token', 'a')]"
