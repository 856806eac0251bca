"""What is the same in every framework: an outage is 503, one session may be shared by
applications of several, and a framework that is not there is told how to install.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

import wsgisession
from wsgisession import SessionManager, SessionMiddleware, get_session
from wsgisession.stores.memory import MemoryStore

from ..conftest import missing
from ..redis_servers import RedisServer
from ..test_examples import code_lines

ADAPTERS = Path(wsgisession.__file__).parent / "integrations"
NAMES = ("flask", "pyramid", "bottle", "django", "beaker")

for name in NAMES:
    if name != "beaker" and find_spec(name) is None:
        missing(name)

# -- an outage ---------------------------------------------------------------------------

IN_A_DEAD_PLACE = """
import sys
from webtest import TestApp
from tests.integrations.counters import FRAMEWORKS

client = TestApp(FRAMEWORKS[sys.argv[1]](), lint=False)
client.post("/increment?key=n")
print("kept", flush=True)
sys.stdin.readline()
for method in (client.get, client.post):
    answer = method("/increment?key=n", expect_errors=True)
    headers = answer.headers
    print(answer.status_int, headers["Retry-After"], headers.get("Set-Cookie"))
"""


@pytest.mark.parametrize("framework", NAMES)
def test_a_dead_redis_is_503_in_every_framework(framework: str, tmp_path: Path) -> None:
    """P8: with a time to come back, and without a word to the cookie."""
    pytest.importorskip("redis")
    package = Path(wsgisession.__file__).parent.parent
    tests = Path(__file__).parent.parent.parent
    with RedisServer(tmp_path) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_A_DEAD_PLACE, framework],
            env={
                **os.environ,
                "SESSION_URL": server.url,
                "PYTHONPATH": f"{package}{os.pathsep}{tests}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "kept\n"
    said, errors = process.communicate("go on\n", timeout=60)
    assert said.splitlines() == ["503 1 None"] * 2, errors


# -- side by side ------------------------------------------------------------------------


def applications(manager: SessionManager) -> dict[str, Any]:
    """A Flask, a Bottle, a Pyramid and a plain application with one manager."""
    from bottle import Bottle
    from flask import Flask, session
    from pyramid.config import Configurator
    from pyramid.response import Response

    from wsgisession.integrations.bottle import SessionPlugin
    from wsgisession.integrations.flask import Sessions

    flask = Flask(__name__)
    Sessions(flask, manager=manager)

    @flask.post("/add")
    def add_in_flask() -> str:
        session.setdefault("cart", []).append("flask")
        return str(session["cart"])

    bottle = Bottle()
    bottle.install(SessionPlugin(manager=manager))

    @bottle.post("/add")
    def add_in_bottle(session: Any) -> str:
        session.setdefault("cart", []).append("bottle")
        return str(session["cart"])

    config = Configurator(settings={"session.manager": manager})
    config.include("wsgisession.integrations.pyramid")

    def add_in_pyramid(request: Any) -> Any:
        request.session.setdefault("cart", []).append("pyramid")
        return Response(str(request.session["cart"]))

    config.add_route("add", "/add")
    config.add_view(add_in_pyramid, route_name="add", request_method="POST")

    def plain(environ: Any, start_response: Any) -> list[bytes]:
        found = get_session(environ)
        found.setdefault("cart", []).append("plain")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(found["cart"]).encode()]

    return {
        "flask": flask,
        "bottle": bottle,
        "pyramid": config.make_wsgi_app(),
        "plain": SessionMiddleware(plain, manager=manager),
    }


@pytest.mark.parametrize("outer", [True, False])
def test_applications_side_by_side_share_one_session(outer: bool) -> None:
    """With and without a middleware around them all: one cookie, one record."""
    manager = SessionManager(MemoryStore())
    inside = applications(manager)

    def dispatch(environ: Any, start_response: Any) -> Any:
        name, _, rest = environ["PATH_INFO"].strip("/").partition("/")
        return inside[name]({**environ, "PATH_INFO": f"/{rest}"}, start_response)

    app = SessionMiddleware(dispatch, manager=manager) if outer else dispatch
    client = TestApp(app, lint=False)
    for number, name in enumerate([*inside, *inside], start=1):
        cart = ast.literal_eval(client.post(f"/{name}/add").text)
        assert len(cart) == number
        assert cart[-1] == name
    assert len(list(client.cookiejar)) == 1
    assert len(list(manager.sessions())) == 1


# -- the adapters ------------------------------------------------------------------------

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{name}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
import wsgisession.integrations.{name}
"""


@pytest.mark.parametrize("name", [name for name in NAMES if name != "beaker"])
def test_a_missing_framework_says_how_to_install_it(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(name=name)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: wsgisession.integrations.{name} needs {name}; install it with: "
        f'python -m pip install "wsgisession-middleware[{name}]"'
    )


def test_beakers_adapter_needs_no_beaker() -> None:
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(name="beaker")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == 0


THIN = {"django": 350}
"""Django's adapter is three: an engine, a middleware for views of both kinds, and a
check."""


@pytest.mark.parametrize("name", NAMES)
def test_each_adapter_is_thin(name: str) -> None:
    """By its lines of code; Beaker's table of options is data, and not counted."""
    folder = ADAPTERS / name
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    files = [path for path in files if (name, path.name) != ("beaker", "_options.py")]
    assert sum(len(code_lines(path)) for path in files) < THIN.get(name, 250)
