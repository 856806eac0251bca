"""A plugin of pytest: every Bottle application has our plugin installed."""

from __future__ import annotations

from typing import Any

import bottle

from wsgisession.integrations.bottle import SessionPlugin
from wsgisession.stores.memory import MemoryStore

_init = bottle.Bottle.__init__
_plugin = SessionPlugin(store=MemoryStore())


def init(self: Any, *args: Any, **kwargs: Any) -> None:
    """As Bottle's, and then as a user would go on; mounted applications share it."""
    _init(self, *args, **kwargs)
    self.install(_plugin)


bottle.Bottle.__init__ = init
