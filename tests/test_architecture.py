"""The house stands: arrows point down, and what must never be imported is not.

The rules are functions of a tree of sources, so that each can be shown to catch a tree
that breaks it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import wsgisession

PACKAGE = "wsgisession"
ROOT = Path(wsgisession.__file__).parent

FLOORS = {
    1: "_made errors events _health record _outages _crypto _crypto.secret",
    2: "telemetry views store _profiles serializers _settings options _crypto.*",
    3: "_core _core.* stores stores.* testing testing.* _http _http.cookies _http.caching"
    " _http.notices",
    4: "_access _mapping user_data session",
    5: "manager",
    6: "_http.exchange",
    7: "middleware",
    8: "testing.apps your_sessions your_sessions.* integrations integrations.*",
    9: "__init__ __main__ _cli _cli.* _demo _demo.*",
}
"""Who may know whom: a file knows files of its own floor and of those below."""

SHOP = 9
"""The floor of what is built on top, with whatever it needs."""

EXTERNAL = {
    "serializers": {"msgspec"},
    "_settings": {"typing_extensions"},
    "options": {"typing_extensions"},
    "_crypto": {"itsdangerous", "cryptography"},
    "_http.cookies": {"webob"},
    "middleware": {"webob"},
    "your_sessions": {"webob"},
    "testing": {"pytest"},
    "telemetry": {"opentelemetry"},
    "cli.commands": {"click"},
    "_cli.output": {"rich"},
    "_cli.settings": {"tomli"},
    "stores.file": {"filelock"},
    "stores.redis": {"redis"},
    "stores.sqlalchemy": {"sqlalchemy"},
    "integrations.flask": {"flask", "markupsafe"},
    "integrations.pyramid": {"pyramid", "pyramid_retry", "zope"},
    "integrations.bottle": {"bottle"},
    "integrations.django": {"django", "asgiref"},
}
"""Whose code beyond the standard library a file or a folder may import."""

SEALED = ("stores.cookie", "stores.sealed")
"""The stores that know seals."""

WEB = ("wsgiref", "http.", "webob", "urllib.request")
PICKLES = ("pickle", "_pickle", "cPickle", "marshal", "shelve", "copyreg", "dill")
PICKLES += ("cloudpickle", "jsonpickle", "joblib")
MUTABLE = ("dict", "list", "set", "bytearray", "defaultdict", "deque", "OrderedDict")
MUTABLE += ("Counter", "WeakKeyDictionary", "WeakValueDictionary", "count", "Lock")
MUTABLE += ("RLock", "Condition", "Event", "Semaphore", "local", "ContextVar")
MUTATORS = ("append", "add", "update", "pop", "popitem", "clear", "extend", "insert")
MUTATORS += ("remove", "discard", "setdefault", "__setitem__", "sort", "appendleft")

OWNERLESS = ("integrations.beaker._manager_of",)
"""What may remember a few results though nobody owns it: applications make Beaker's
classes at every request, from nothing but options."""

LONGEST_FILE, LONGEST_FUNCTION = 460, 40
"""In lines."""

Sources = dict[str, str]
"""Source by the module's name within the package: ``__init__``, ``stores.file``."""


@dataclass(frozen=True)
class Arrow:
    """One import: who, what, and whether it is ours."""

    who: str
    what: str
    ours: bool


def package(root: Path) -> Sources:
    """The sources of the package as it is."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        folder = len(parts) > 1 and parts[-1] == "__init__"
        found[".".join(parts[:-1] if folder else parts)] = path.read_text("utf-8")
    return found


def is_folder(sources: Sources, module: str) -> bool:
    """Whether a module is an ``__init__.py`` with others beside it."""
    return any(name.startswith(f"{module}.") for name in sources)


def arrows(sources: Sources) -> Iterator[Arrow]:
    """All imports, also those within functions and for type checkers alone."""
    for who, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield arrow(sources, who, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = absolute(sources, who, node)
                for alias in node.names:
                    yield arrow(sources, who, f"{base}.{alias.name}", base)


def absolute(sources: Sources, who: str, node: ast.ImportFrom) -> str:
    """What ``from ... import`` names, without the dots in front."""
    if not node.level:
        return node.module or ""
    here = [PACKAGE] if who == "__init__" else [PACKAGE, *who.split(".")]
    if who != "__init__" and not is_folder(sources, who):
        here.pop()
    here = here[: len(here) - node.level + 1]
    return ".".join([*here, *filter(None, [node.module])])


def arrow(sources: Sources, who: str, name: str, otherwise: str = "") -> Arrow:
    """The import of a name, which is a module, or else a part of one."""
    if name.partition(".")[0] != PACKAGE:
        return Arrow(who, name, ours=False)
    for full in (name, otherwise):
        inner = full.partition(".")[2]
        if inner in sources:
            return Arrow(who, inner, ours=True)
    return Arrow(who, "__init__", ours=True)


def floor(module: str) -> int | None:
    """The floor that a module stands on, or None if nobody has given it one."""
    below = None
    for number, names in FLOORS.items():
        for name in names.split():
            if module == name:
                return number
            if name.endswith(".*") and module.startswith(name[:-1]):
                below = number
    return below


def store_of(module: str) -> str | None:
    """The store that a file belongs to: ``stores.file`` for ``stores.file._disk``."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "stores" and len(parts) > 1 else None


def folders(module: str) -> Iterator[str]:
    """A module and the folders around it."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


# -- the rules: each gives a sentence for every breach -----------------------------------


def every_file_has_a_floor(sources: Sources) -> Iterator[str]:
    for module in sources:
        if floor(module) is None:
            yield f"{module} stands on no floor: give it one"


def arrows_point_down(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        here, there = floor(each.who), floor(each.what)
        if each.ours and here and there and there > here:
            yield f"{each.who} (floor {here}) imports {each.what} (floor {there})"


def there_is_no_circle(sources: Sources) -> Iterator[str]:
    """No module can be reached from itself."""
    known: dict[str, set[str]] = {module: set() for module in sources}
    for each in arrows(sources):
        if each.ours and each.what != each.who:
            known[each.who].add(each.what)
    for module in sources:
        seen: set[str] = set()
        ahead = set(known[module])
        while ahead:
            seen |= ahead
            ahead = {far for near in ahead for far in known.get(near, ())} - seen
        if module in seen:
            yield f"{module} imports itself in the end"


def a_store_knows_records_and_its_driver(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        store = store_of(each.who)
        if store is None or not each.ours:
            continue
        known = each.what in ("record", "errors", "_health", "_outages", "store")
        seals = each.what.startswith("_crypto") and store in SEALED
        if not (known or seals or store_of(each.what) == store):
            yield f"the store {each.who} imports {each.what}"


def only_a_store_knows_its_halves(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        store = store_of(each.what)
        if each.ours and store and each.what != store and store_of(each.who) != store:
            yield f"{each.who} imports {each.what}, which is a store's own"


def a_session_knows_neither_http_nor_a_store(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        if each.who == "session" or each.who.startswith("_core"):
            web = not each.ours and each.what.startswith(WEB)
            ours = each.what.startswith(("_http", "middleware", "stores"))
            if web or (each.ours and ours):
                yield f"{each.who} imports {each.what}"


def a_manager_knows_no_wsgi(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        if each.who == "manager":
            web = not each.ours and each.what.startswith(WEB)
            ours = each.what in ("middleware", "_http.caching") or store_of(each.what)
            if web or (each.ours and ours):
                yield f"manager imports {each.what}"


def an_exchange_knows_no_wsgi_callables(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        if each.who == "_http.exchange" and each.what.startswith(("wsgiref", "webob")):
            yield f"{each.who} imports {each.what}"


def an_integration_knows_no_store(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        if each.who.startswith("integrations.") and each.ours:
            adapter, known = (name.split(".")[:2] for name in (each.who, each.what))
            other = known[0] == "integrations" and len(known) > 1 and known != adapter
            other = other and not known[1].startswith("_")  # which belongs to them all
            if known[0] == "stores" or other:
                yield f"{each.who} imports {each.what}"


def others_code_stays_where_it_belongs(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        top = each.what.partition(".")[0]
        if each.ours or top in sys.stdlib_module_names or floor(each.who) == SHOP:
            continue
        if not any(top in EXTERNAL.get(name, ()) for name in folders(each.who)):
            yield f"{each.who} imports {each.what}"


def nobody_pickles(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        if not each.ours and each.what.partition(".")[0] in PICKLES:
            yield f"{each.who} imports {each.what}"


def nobody_reads_with_http_cookies(sources: Sources) -> Iterator[str]:
    for each in arrows(sources):
        if not each.ours and each.what.startswith(("http.cookies", "http.cookiejar")):
            yield f"{each.who} imports {each.what}"


def nothing_is_kept_for_a_thread(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            name = node.attr if isinstance(node, ast.Attribute) else ""
            name = node.id if isinstance(node, ast.Name) else name
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                if node.module in ("threading", "_thread") and "local" in names:
                    yield f"{module} imports thread-locals"
                name = "ContextVar" if "ContextVar" in names else ""
            if name == "ContextVar":
                yield f"{module} uses a context variable"
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "threading.local",
                "_thread._local",
            ):
                yield f"{module} uses thread-locals"


def no_module_has_a_state(sources: Sources) -> Iterator[str]:
    """What is mutable at module or class level is a constant that nobody changes.

    An approximation: it follows no value through calls or into other modules.
    """
    for module, source in sources.items():
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                yield f"{module} has the global {', '.join(node.names)}"
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for decorator in node.decorator_list:
                    remembers = called(decorator) in ("cache", "lru_cache")
                    if remembers and f"{module}.{node.name}" not in OWNERLESS:
                        yield f"{module}.{node.name} remembers its results for ever"
        classes = (n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
        constants = set()
        for body in (tree.body, *classes):
            for name, value in assigned(body):
                if is_mutable(value):
                    if not name.isupper() and name not in ("__slots__", "__all__"):
                        yield f"{module} keeps a state in {name}"
                    constants.add(name)
        for name in changed(tree) & constants:
            yield f"{module} changes its constant {name}"


def called(node: ast.expr) -> str:
    """The last part of the name of what is called or named."""
    node = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """The names that some statements bind, with what they are bound to."""
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def is_mutable(node: ast.expr) -> bool:
    """Whether an expression makes something that can be changed or held."""
    displays = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
    if isinstance(node, ast.Call):
        return called(node) in MUTABLE
    return isinstance(node, displays)


def changed(tree: ast.AST) -> set[str]:
    """The names whose object is changed in place within some function."""
    found = set()
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        bound = {
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for node in ast.walk(function):
            owner: ast.expr | None = None
            if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                owner = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value if node.func.attr in MUTATORS else None
            elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                owner = node.value
            if isinstance(owner, ast.Name) and owner.id not in bound:
                found.add(owner.id)
            elif isinstance(owner, ast.Attribute):
                found.add(owner.attr if owner.attr.isupper() else "")
    return found


def a_file_is_read_in_one_sitting(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        if (lines := source.count("\n")) > LONGEST_FILE:
            yield f"{module} has {lines} lines: redraw it"


def a_function_fits_a_screen(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    yield f"{module}.{node.name} has {lines} lines"


RULES: list[Callable[[Sources], Iterator[str]]] = [
    every_file_has_a_floor,
    arrows_point_down,
    there_is_no_circle,
    a_store_knows_records_and_its_driver,
    only_a_store_knows_its_halves,
    a_session_knows_neither_http_nor_a_store,
    a_manager_knows_no_wsgi,
    an_exchange_knows_no_wsgi_callables,
    an_integration_knows_no_store,
    others_code_stays_where_it_belongs,
    nobody_pickles,
    nobody_reads_with_http_cookies,
    nothing_is_kept_for_a_thread,
    no_module_has_a_state,
    a_file_is_read_in_one_sitting,
    a_function_fits_a_screen,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[Sources], Iterator[str]]) -> None:
    """Nothing in the package breaks it."""
    assert set(rule(package(ROOT))) == set()


# -- a made-up house: first a sound one, then one with each rule broken ------------------

SOUND: Sources = {
    "__init__": "from .manager import M as M\nfrom .errors import E as E",
    "errors": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n from .record import R"
    ),
    "record": "import hashlib\nNAMES = {'a': 1}\nPAIRS = [1]",
    "store": "from .record import R",
    "_crypto": "",
    "_crypto.tokens": "from itsdangerous import Signer\nfrom ..record import R",
    "_core": "",
    "_core.work": "from ..store import S",
    "session": "from ._core.work import W\ndef f():\n names = {}\n names['a'] = 1",
    "stores": "from ..errors import E\nfrom importlib import import_module",
    "stores.file": "from ._disk import d\nfrom ...record import R",
    "stores.file._disk": "from ...errors import E\nimport filelock",
    "stores.redis": "from ...record import R\nimport redis.backoff",
    "stores.redis._servers": "",
    "stores.sealed": "from .._crypto import tokens",
    "_http": "",
    "_http.cookies": "from webob import cookies",
    "manager": "from ._crypto import tokens\nfrom .stores import choose",
    "_http.exchange": "from ..manager import M\nfrom . import cookies",
    "middleware": "from ._http.exchange import X\nfrom webob import exc",
    "integrations": "",
    "integrations.flask": "import flask\nfrom ..middleware import M",
    "_cli": "import argparse\ndef main():\n from .. import _demo",
    "_demo": "from wsgiref.simple_server import make_server",
}

BROKEN: list[tuple[Callable[[Sources], Iterator[str]], Sources]] = [
    (a_file_is_read_in_one_sitting, {"session": "\n" * 461}),
    (a_function_fits_a_screen, {"session": "def f():\n" + " pass\n" * 40}),
    (every_file_has_a_floor, {"utils": ""}),
    (every_file_has_a_floor, {"helpers.text": ""}),
    (arrows_point_down, {"record": "from .session import S"}),
    (arrows_point_down, {"record": "from . import session"}),
    (arrows_point_down, {"record": "from wsgisession.session import S"}),
    (arrows_point_down, {"record": "import wsgisession.manager"}),
    (arrows_point_down, {"record": "def f():\n from .manager import M"}),
    (arrows_point_down, {"session": "from . import M"}),
    (arrows_point_down, {"stores.file": "from ...middleware import M"}),
    (arrows_point_down, {"_core.work": "from ..session import S"}),
    (arrows_point_down, {"session": "from .manager import M"}),
    (arrows_point_down, {"manager": "from ._http.exchange import X"}),
    (arrows_point_down, {"_http.exchange": "from ..middleware import M"}),
    (arrows_point_down, {"middleware": "from .integrations.flask import F"}),
    (
        arrows_point_down,
        {"store": "import typing\nif typing.TYPE_CHECKING:\n from . import session"},
    ),
    (there_is_no_circle, {"record": "from .errors import E"}),
    (there_is_no_circle, {"record": "def f():\n from ._crypto import tokens"}),
    (
        there_is_no_circle,
        {"stores": "from .file import F", "stores.file._disk": "from .. import X"},
    ),
    (
        a_store_knows_records_and_its_driver,
        {"stores.file": "from ...session import S"},
    ),
    (a_store_knows_records_and_its_driver, {"stores.file": "from ..redis import R"}),
    (a_store_knows_records_and_its_driver, {"stores.file": "from .. import redis"}),
    (a_store_knows_records_and_its_driver, {"stores.file": "from .. import choose"}),
    (
        a_store_knows_records_and_its_driver,
        {"stores.file": "from ..._crypto.tokens import T"},
    ),
    (
        a_store_knows_records_and_its_driver,
        {"stores.file._disk": "from ...options import O", "options": ""},
    ),
    (only_a_store_knows_its_halves, {"stores.redis": "from ..file._disk import d"}),
    (only_a_store_knows_its_halves, {"manager": "from .stores.file._disk import d"}),
    (a_session_knows_neither_http_nor_a_store, {"session": "import wsgiref.util"}),
    (a_session_knows_neither_http_nor_a_store, {"session": "from webob import exc"}),
    (
        a_session_knows_neither_http_nor_a_store,
        {"session": "from .stores import choose"},
    ),
    (
        a_session_knows_neither_http_nor_a_store,
        {"_core.work": "from ..stores.file import F"},
    ),
    (
        a_session_knows_neither_http_nor_a_store,
        {"_core.work": "def f():\n from .._http import cookies"},
    ),
    (a_manager_knows_no_wsgi, {"manager": "from wsgiref.types import WSGIEnvironment"}),
    (a_manager_knows_no_wsgi, {"manager": "from .middleware import M"}),
    (a_manager_knows_no_wsgi, {"manager": "from .stores.file import F"}),
    (an_exchange_knows_no_wsgi_callables, {"_http.exchange": "import wsgiref.headers"}),
    (
        an_integration_knows_no_store,
        {"integrations.flask": "from ..stores import choose"},
    ),
    (
        an_integration_knows_no_store,
        {"integrations.flask": "from .django import D", "integrations.django": ""},
    ),
    (others_code_stays_where_it_belongs, {"session": "import redis"}),
    (others_code_stays_where_it_belongs, {"manager": "def f():\n import sqlalchemy"}),
    (others_code_stays_where_it_belongs, {"stores.redis": "import filelock"}),
    (others_code_stays_where_it_belongs, {"middleware": "from flask import Flask"}),
    (nobody_pickles, {"serializers": "import pickle"}),
    (nobody_pickles, {"serializers": "def f():\n from pickle import loads"}),
    (nobody_pickles, {"stores.file": "import shelve as kept"}),
    (
        nobody_reads_with_http_cookies,
        {"_http.cookies": "from http.cookies import SimpleCookie"},
    ),
    (nobody_reads_with_http_cookies, {"_http.cookies": "from http import cookies"}),
    (
        nothing_is_kept_for_a_thread,
        {"session": "import threading\nx = threading.local()"},
    ),
    (nothing_is_kept_for_a_thread, {"session": "from threading import local"}),
    (nothing_is_kept_for_a_thread, {"session": "from contextvars import ContextVar"}),
    (
        nothing_is_kept_for_a_thread,
        {"session": "import contextvars as c\nc.ContextVar('a')"},
    ),
    (no_module_has_a_state, {"session": "_cache = {}"}),
    (no_module_has_a_state, {"session": "sessions: list[int] = []"}),
    (no_module_has_a_state, {"session": "import threading\n_lock = threading.Lock()"}),
    (no_module_has_a_state, {"session": "n = 0\ndef f():\n global n\n n += 1"}),
    (no_module_has_a_state, {"session": "SEEN = set()\ndef f(x):\n SEEN.add(x)"}),
    (no_module_has_a_state, {"session": "SEEN = {}\ndef f(x):\n SEEN[x] = 1"}),
    (no_module_has_a_state, {"session": "SEEN = {}\ndef f(x):\n del SEEN[x]"}),
    (no_module_has_a_state, {"session": "class S:\n seen = []"}),
    (
        no_module_has_a_state,
        {"session": "class S:\n ALL = []\n def f(s):\n  s.ALL.append(s)"},
    ),
    (
        no_module_has_a_state,
        {"session": "import functools\n@functools.cache\ndef f(): 0"},
    ),
    (
        no_module_has_a_state,
        {"session": "from functools import *\n@lru_cache(9)\ndef f(): 0"},
    ),
]


class TestTheControls:
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
    def test_a_sound_house_is_let_be(
        self, rule: Callable[[Sources], Iterator[str]]
    ) -> None:
        """No rule complains about a house that keeps them all."""
        assert list(rule(SOUND)) == []

    @pytest.mark.parametrize(
        ("rule", "change"),
        BROKEN,
        ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(BROKEN)],
    )
    def test_a_breach_is_caught(
        self, rule: Callable[[Sources], Iterator[str]], change: Sources
    ) -> None:
        """The same house with one thing wrong is complained about."""
        assert list(rule({**SOUND, **change}))

    def test_every_rule_has_a_control(self) -> None:
        """A rule that has never caught anything proves nothing."""
        assert {rule for rule, _ in BROKEN} == set(RULES)

    def test_the_package_was_found(self) -> None:
        """The rules are applied to the files that are there."""
        sources = package(ROOT)
        assert {"__init__", "session", "stores", "stores.file"} <= set(sources)
        ours = [each for each in arrows(sources) if each.ours]
        assert Arrow("middleware", "_http.exchange", ours=True) in ours
        assert Arrow("stores.file", "stores.file._store", ours=True) in ours
        assert Arrow("errors", "record", ours=True) in ours
        assert not any(
            each.what == "__init__" for each in ours if each.who != "__main__"
        )


def test_a_session_has_few_members() -> None:
    """An application learns them in an hour; what answers requests is not among them."""
    from wsgisession import Session

    members = {name for name in dir(Session) if not name.startswith("_")}
    mapping = set(dir(MutableMapping))
    assert len(members) <= 45
    assert len(members - mapping) <= 31
