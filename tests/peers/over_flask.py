"""A plugin of pytest: every Flask application has its sessions by our adapter."""

from __future__ import annotations

from typing import Any

import flask
from flask.sessions import SecureCookieSessionInterface

from wsgisession.integrations.flask import Sessions
from wsgisession.stores.memory import MemoryStore

_init = flask.Flask.__init__


def init(self: Any, *args: Any, **kwargs: Any) -> None:
    """As Flask's, and then as a user would go on."""
    _init(self, *args, **kwargs)
    if type(self.session_interface) is SecureCookieSessionInterface:
        Sessions(self, store=MemoryStore())


flask.Flask.__init__ = init  # type: ignore[method-assign]
