"""Browsers: a jar, the environ of a request, and what becomes of an answer.

A request carries what the jar holds when it is sent.  Tabs share a jar; a copy has a jar
of its own with the same token; a forger knows the id and not the secret.
"""

from __future__ import annotations

import io
from typing import Any

from . import edition
from .programs import Request


class Browser:
    """A client with a jar for our one cookie."""

    def __init__(self, name: str, token: str | None = None) -> None:
        self.name = name
        self.jar: dict[str, str] = {}
        self.lineage: str | None = None
        """Whose session it began with."""
        if token is not None:
            self.jar[edition.COOKIE] = token

    @property
    def token(self) -> str | None:
        return self.jar.get(edition.COOKIE)

    def environ(self, request: Request) -> dict[str, Any]:
        """What a server makes of the request as it is sent now."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": f"/{request.name}",
            "SCRIPT_NAME": "",
            "QUERY_STRING": request.query,
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "443" if request.scheme == "https" else "80",
            "HTTP_HOST": "shop.example",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": request.scheme,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if request.site:
            environ["HTTP_SEC_FETCH_SITE"] = request.site
        if self.jar:
            environ["HTTP_COOKIE"] = "; ".join(f"{k}={v}" for k, v in self.jar.items())
        return environ

    def keep(self, cookies: list[str]) -> None:
        """Do what the ``Set-Cookie`` headers of an answer say."""
        for line in cookies:
            name, value, gone = parse(line)
            if gone:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value


def parse(line: str) -> tuple[str, str, bool]:
    """Name and value of a ``Set-Cookie`` header, and whether it takes the cookie away."""
    pair, *attributes = line.split(";")
    name, _, value = pair.partition("=")
    gone = any(each.strip().lower() == "max-age=0" for each in attributes)
    return name.strip(), value.strip().strip('"'), gone or not value


def tokens_in(cookies: list[str]) -> list[str]:
    """The tokens of ours that an answer sets."""
    parsed = [parse(line) for line in cookies]
    return [v for name, v, gone in parsed if name == edition.COOKIE and not gone]
