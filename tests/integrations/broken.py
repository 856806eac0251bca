"""A store that is out of reach from some moment on."""

from __future__ import annotations

from typing import Any

from wsgisession import StoreError
from wsgisession.stores.memory import MemoryStore


class Broken(MemoryStore):
    """It works until ``is_broken`` is set."""

    is_broken = False

    def load(self, *args: Any) -> Any:
        self._fail()
        return super().load(*args)

    def lock(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().lock(*args, **kwargs)

    def _fail(self) -> None:
        if self.is_broken:
            raise StoreError("out of reach")
