"""A site whose users see where they are logged in: ``python examples/your_sessions.py``.

Log in at http://localhost:8080/login?ann with several browsers, and look at
http://localhost:8080/account/sessions.
"""

from wsgiref.simple_server import make_server
from wsgiref.util import shift_path_info

from wsgisession import SessionMiddleware, get_session
from wsgisession.your_sessions import YourSessions

your_sessions = YourSessions(log_in="/login?ann")


def site(environ, start_response):
    """A login without a password, and the page at its place."""
    path = environ["PATH_INFO"]
    if path.startswith("/account/sessions"):
        shift_path_info(environ)
        shift_path_info(environ)
        return your_sessions(environ, start_response)
    session = get_session(environ)
    if path == "/login":
        # The user agent tells the page what to call the device.
        session.login(
            environ["QUERY_STRING"] or "ann",
            user_agent=environ.get("HTTP_USER_AGENT", ""),
        )
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"You are {session.user or 'nobody'}.".encode()]


application = SessionMiddleware(site, {"url": "sqlite:///sessions.db"})

if __name__ == "__main__":
    make_server("localhost", 8080, application).serve_forever()
