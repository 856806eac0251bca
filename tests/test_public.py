"""What an application may import is told by names, by ``__all__``, and by ``help()``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import pydoc
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import wsgisession
from wsgisession import Session
from wsgisession.store import IterableStore, LockingStore, MarkingStore, TokenStore

from .conftest import missing

OF_DJANGO_ALONE = "wsgisession.integrations.django"
"""Its modules need settings; its tests hold its names."""

PROTOCOL = {
    name
    for protocol in (IterableStore, LockingStore, MarkingStore, TokenStore)
    for name in dir(protocol)
}
"""What these methods do is said once, in ``wsgisession.store``."""


def public_modules() -> Iterator[ModuleType]:
    """Those without an underscore anywhere in their path."""
    yield wsgisession
    for found in pkgutil.walk_packages(wsgisession.__path__, "wsgisession."):
        if "._" in found.name or found.name.startswith(OF_DJANGO_ALONE):
            continue
        try:
            yield importlib.import_module(found.name)
        except ImportError as error:
            missing(str(error))


def members(thing: Any) -> Iterator[str]:
    """The methods and properties that a class defines for those who use it."""
    for name, value in vars(thing).items():
        is_plain = callable(value) or isinstance(value, (property, classmethod))
        if is_plain and not name.startswith("_"):
            yield name


def undocumented(module: ModuleType) -> Iterator[str]:
    """The public names of a module that say nothing of themselves."""
    for name in module.__all__:
        thing = getattr(module, name)
        is_spoken_of = inspect.isclass(thing) or inspect.isfunction(thing)
        if is_spoken_of and not inspect.getdoc(thing):
            yield name
        if inspect.isclass(thing) and thing.__module__.startswith("wsgisession"):
            for each in members(thing):
                if each not in PROTOCOL and not inspect.getdoc(getattr(thing, each)):
                    yield f"{name}.{each}"


def functions(module: ModuleType) -> Iterator[tuple[str, Any, str]]:
    """The public functions and methods of a module, with what is said of them.

    The suites are tests, and what a method of a protocol does is said by its class.
    """
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            yield name, thing, inspect.getdoc(thing) or ""
        if not inspect.isclass(thing) or name.endswith("Suite"):
            continue
        if getattr(thing, "_is_protocol", False):
            continue
        if "__init__" in vars(thing):
            yield name, thing.__init__, inspect.getdoc(thing) or ""
        for each in members(thing):
            value = vars(thing)[each]
            value = value.fget if isinstance(value, property) else value
            value = getattr(value, "__func__", value)
            if each not in PROTOCOL and inspect.isfunction(value):
                yield f"{name}.{each}", value, inspect.getdoc(value) or ""


def without_a_unit(module: ModuleType) -> list[str]:
    """Functions that take or give a ``float``, and do not say of what."""
    return [
        name
        for name, function, said in functions(module)
        if re.search(r"\bfloat\b", str(inspect.signature(function)))
        and not re.search("seconds?|epoch|moment|days", said, re.IGNORECASE)
    ]


def without_an_error(module: ModuleType) -> list[str]:
    """Functions that raise, and do not say what."""
    found = []
    for name, function, said in functions(module):
        if function.__qualname__.startswith("__create_fn__"):
            continue  # made by dataclass
        try:
            source = inspect.getsource(function)
        except OSError:
            continue
        raised = set(re.findall(r"raise ([A-Z]\w+)", source)) - {"AttributeError"}
        found += [f"{name}: {each}" for each in raised if each not in said]
    return found


def test_every_public_name_says_its_units_and_errors() -> None:
    for module in public_modules():
        assert without_a_unit(module) == [], module.__name__
        assert without_an_error(module) == [], module.__name__


def test_every_public_module_says_what_is_public() -> None:
    for module in public_modules():
        assert module.__doc__
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_every_public_name_is_documented() -> None:
    for module in public_modules():
        assert list(undocumented(module)) == [], module.__name__


def test_a_name_without_a_word_is_found() -> None:
    """The control."""

    class Silent:
        def method(self) -> None: ...

    Silent.__module__ = "wsgisession.made_up"
    module = ModuleType("made_up")
    module.__all__ = ["Silent"]  # type: ignore[attr-defined]
    module.Silent = Silent  # type: ignore[attr-defined]
    assert list(undocumented(module)) == ["Silent", "Silent.method"]


def test_a_unit_and_an_error_that_are_not_said_are_found() -> None:
    """The control."""

    def waits(wait: float) -> None:
        """Waits."""
        raise ValueError

    module = ModuleType("made_up")
    module.__all__ = ["waits"]  # type: ignore[attr-defined]
    module.waits = waits  # type: ignore[attr-defined]
    assert without_a_unit(module) == ["waits"]
    assert without_an_error(module) == ["waits: ValueError"]


@pytest.mark.parametrize("name", ["login", "user_data", "set_expiry", "lock"])
def test_help_shows_what_an_application_may_call(name: str) -> None:
    assert name in pydoc.plain(pydoc.render_doc(Session))


@pytest.mark.parametrize("name", ["_access", "_work", "repository", "transaction"])
def test_help_shows_nothing_else(name: str) -> None:
    assert f" {name}" not in pydoc.plain(pydoc.render_doc(Session))


def test_help_of_the_package_lists_its_names() -> None:
    text = pydoc.plain(pydoc.render_doc(wsgisession))
    for name in ("SessionMiddleware", "SessionManager", "get_session", "StoreError"):
        assert name in text
