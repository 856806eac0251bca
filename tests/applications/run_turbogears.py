"""A small TurboGears2 application, whose session component makes Beaker's classes itself.

One line takes the place of Beaker: the class that the component makes.
"""

from __future__ import annotations

import tg.appwrappers.session as component
from tg import MinimalApplicationConfigurator, TGController, expose, session
from tg.configurator.components.session import SessionConfigurationComponent
from webtest import TestApp

from wsgisession.integrations.beaker import Session, SessionObject

component.SessionObject, component.Session = SessionObject, Session


class Root(TGController):  # type: ignore[misc]
    """A counter, as TurboGears' tutorial would write it."""

    @expose()  # type: ignore[untyped-decorator]
    def count(self) -> str:
        """Count, and save."""
        session["n"] = session.get("n", 0) + 1
        session.save()
        return str(session["n"])

    @expose()  # type: ignore[untyped-decorator]
    def forget(self) -> str:
        """Change without ``save()``."""
        session["n"] = 100
        return "forgotten"

    @expose()  # type: ignore[untyped-decorator]
    def leave(self) -> str:
        """End the session."""
        session.delete()
        return "left"


def main() -> None:
    """From the first visit to the end."""
    configurator = MinimalApplicationConfigurator()
    configurator.register(SessionConfigurationComponent)
    configurator.update_blueprint(
        {"root_controller": Root(), "session.enabled": True, "session.timeout": 3600}
    )
    app = configurator.make_wsgi_app({}, {})
    browser, other = (TestApp(app, lint=False) for _ in range(2))
    assert [browser.get("/count").text for _ in range(2)] == ["1", "2"]
    browser.get("/forget")
    assert browser.get("/count").text == "3"
    assert other.get("/count").text == "1"
    kept = browser.cookies["beaker.session.id"]
    browser.get("/leave")
    stranger = TestApp(app, lint=False)
    stranger.set_cookie("beaker.session.id", kept)
    assert stranger.get("/count").text == "1"
    print("TurboGears2: counting, auto=False, an end that is final")


if __name__ == "__main__":
    main()
