"""wuttaweb, which is written for pyramid_beaker, on our Pyramid and Beaker adapters.

Two lines take the place of Beaker: the session factory, and the class of the sessions
that tell of a job's progress.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import wuttaweb.progress
from webtest import TestApp
from wuttaweb.app import make_pyramid_config, make_wutta_config

from wsgisession import SessionManager
from wsgisession.integrations.beaker import Session
from wsgisession.integrations.pyramid import SessionFactory
from wsgisession.stores.memory import MemoryStore

USER = "annabel42"

CONFIG = """
[wutta]
app_title = Trial
[wutta.db]
default.url = sqlite:///{folder}/app.db
"""


def make(folder: Path) -> tuple[TestApp, SessionManager]:
    """The application as its own ``main()`` makes it, with its tables."""
    file = folder / "app.conf"
    file.write_text(CONFIG.format(folder=folder))
    settings = {"wutta.config": str(file)}
    wutta = make_wutta_config(settings)
    wutta.get_app().model.Base.metadata.create_all(wutta.appdb_engine)
    config = make_pyramid_config(settings)
    manager = SessionManager(MemoryStore())
    wuttaweb.progress.BeakerSession = Session
    config.include("wsgisession.integrations.pyramid")
    config.set_session_factory(SessionFactory(manager))
    for part in ("static", "subscribers", "views"):
        config.include(f"wuttaweb.{part}")
    return TestApp(config.make_wsgi_app(), lint=False), manager


def csrf(page: str) -> str:
    """The token of a page's form."""
    (token, *_) = re.findall(r'name="_csrf" type="hidden" value="([^"]+)"', page)
    return str(token)


def main() -> None:
    """From the first account to the logout."""
    browser, manager = make(Path(tempfile.mkdtemp()))
    page = browser.get("/setup")
    account = {
        "_csrf": csrf(page.text),
        "username": USER,
        "__start__": "password:mapping",
    }
    fields = [*account.items(), ("password", "secret"), ("password-confirm", "secret")]
    fields += [("__end__", "password:mapping"), ("first_name", ""), ("last_name", "")]
    page = browser.post("/setup", fields, status=302).follow()
    assert "Account created" in page.text, "a flash is shown"
    refused = browser.post(
        "/login", {"username": USER, "password": "secret"}, status="*"
    )
    assert refused.status_int == 400, "without its CSRF token"
    planted = browser.cookies["sid"]
    login = {"_csrf": csrf(page.text), "username": USER, "password": "secret"}
    home = browser.post("/login", login, status=302).follow()
    assert USER in home.text
    (session,) = manager.sessions()
    key = f"{session.id}.progress.upload"
    job = Session({}, id=key, use_cookies=False)
    job.update(complete=True, success_msg="All books are in.", value=3)
    job.save()
    told = browser.get("/progress/upload").json
    assert (told["complete"], told["value"]) == (True, 3)
    assert "All books are in." in browser.get("/").text
    kept = browser.cookies["sid"]
    browser.get("/logout", status=302)
    for cookie in (planted, kept):
        stranger = TestApp(browser.app, lint=False)
        stranger.set_cookie("sid", cookie)
        assert USER not in stranger.get("/").text
    print("wuttaweb: setup, login, flash, progress, logout")


if __name__ == "__main__":
    main()
