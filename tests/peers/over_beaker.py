"""A plugin of pytest: Beaker's own names for its sessions lead to our adapter."""

from __future__ import annotations

import beaker.middleware
import beaker.session

from wsgisession.integrations.beaker import Session, SessionMiddleware, SessionObject

beaker.middleware.SessionMiddleware = SessionMiddleware
beaker.session.Session = Session
beaker.session.SessionObject = SessionObject
