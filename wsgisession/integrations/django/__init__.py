"""Django: ``SESSION_ENGINE = "wsgisession.integrations.django"``, and in ``MIDDLEWARE``
``"wsgisession.integrations.django.SessionMiddleware"`` in the place of Django's.

The engine alone, with Django's own middleware, is a first step.  It keeps sessions here,
and brings no logout back.  It neither locks nor runs a view again: of two requests that
change one key at the same time the later one wins, with a warning in the log.
"""

from .. import needing

with needing("django"):
    from ._engine import SessionStore as SessionStore
    from ._middleware import SessionMiddleware as SessionMiddleware
    from ._settings import get_manager as get_manager

__all__ = ["SessionMiddleware", "SessionStore", "get_manager"]
