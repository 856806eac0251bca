"""From Beaker, with everybody logged in: old sessions move over at their next request.

Beaker stays outside for as long as its sessions live, and only reads.  What it knows is
taken over into a session of ours, once, and ended there.

Install: ``python -m pip install "wsgisession-middleware[file]" Beaker``
Run:     ``python examples/beaker_migration.py``
"""

import os
from pathlib import Path
from wsgiref.simple_server import make_server

from beaker.middleware import SessionMiddleware as Beaker

from wsgisession.integrations.beaker import SessionMiddleware

FOLDER = Path.home() / ".cache" / "wsgisession-examples"
PORT = int(os.environ.get("PORT", "8000"))

OLD = {
    "session.type": "file",
    "session.data_dir": os.environ.get("BEAKER_DIR", str(FOLDER / "beaker")),
    "session.key": "beaker.session.id",
    "session.save_accessed_time": "false",  # it is only read
}
NEW = {
    "session.url": os.environ.get("SESSION_URL", (FOLDER / "sessions").as_uri()),
    "session.key": "sid",  # a name of its own, so that both are there for a while
}


def application(environ, start_response):
    """Your application, as it is: it knows Beaker's names."""
    session = environ["beaker.session"]
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Visit {session['visits']} of {session.get('user')}".encode()]


def taking_over(app):
    """A visitor who has no session of ours yet brings along what Beaker knows."""

    def middleware(environ, start_response):
        old, new = environ["beaker.old"], environ["beaker.session"]
        if new.is_new and not old.is_new:
            new.update((key, old[key]) for key in old if not key.startswith("_"))
            if new.get("user") is not None:  # where your application keeps it
                new.login(new["user"])
            new.save()
            old.delete()
            old.save()
        return app(environ, start_response)

    return middleware


application = Beaker(
    SessionMiddleware(taking_over(application), NEW), OLD, environ_key="beaker.old"
)

if __name__ == "__main__":
    with make_server("127.0.0.1", PORT, application) as server:
        print(f"http://127.0.0.1:{PORT}/", flush=True)
        server.serve_forever()
