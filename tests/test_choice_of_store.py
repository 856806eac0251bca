"""A store is chosen by url, type or object; a wrong choice is refused in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wsgisession
from wsgisession import (
    ConfigurationError,
    Options,
    SessionManager,
    SessionMiddleware,
)
from wsgisession.options import flatten
from wsgisession.stores import choose, store_at
from wsgisession.stores.cached import CachedStore
from wsgisession.stores.file import FileStore
from wsgisession.stores.memory import MemoryStore
from wsgisession.stores.sqlalchemy import SQLAlchemyStore

from .conftest import SECRET


def refused(config: Any = None, **options: Any) -> str:
    """The sentence with which a whole configuration is refused."""
    with pytest.raises(ConfigurationError) as caught:
        SessionManager.from_config(config, **options)
    return str(caught.value)


def called(*args: Any) -> Any:
    """Anything callable."""


class TestChoiceOfAStore:
    @pytest.mark.parametrize(
        "config",
        [{"session.url": "memory:"}, {"session.type": "memory"}, {"type": "memory"}],
        ids=repr,
    )
    def test_memory(self, config: dict[str, str]) -> None:
        """Memory is chosen by its url or its type."""
        assert isinstance(SessionManager.from_config(config).store, MemoryStore)
        assert isinstance(SessionMiddleware(called, config).manager.store, MemoryStore)

    def test_files(self, tmp_path: Path) -> None:
        """Files are chosen by url, by type, or by the folder alone."""
        for number, config in enumerate(
            [
                {"session.url": f"file://{tmp_path}/0"},
                {"type": "file", "data_dir": tmp_path / "1"},
                {"data_dir": str(tmp_path / "2")},
                {"session.url": f"file://{tmp_path}/with%20blank"},
            ]
        ):
            manager = SessionManager.from_config(config)
            folder = tmp_path / ("with blank" if number == 3 else str(number))
            assert isinstance(manager.store, FileStore)
            assert folder.is_dir()

    def test_its_options_reach_it(self, tmp_path: Path) -> None:
        """The store refuses what it does not understand, so it has been asked."""
        message = refused(data_dir=tmp_path / "a", durability="sometimes")
        assert "durability='sometimes'" in message
        SessionManager.from_config(data_dir=tmp_path / "b", durability="fsync")

    @pytest.mark.parametrize(
        "kind", ["memory", "file", "redis", "sqlalchemy", "cookie"]
    )
    def test_its_own_options_have_no_other_name(self, kind: str) -> None:
        """No setting is renamed on its way, and none of theirs is one of Beaker's."""
        own = choose({"type": kind}).options - {"url"}
        config = {f"session.{name}": name for name in own}
        assert flatten(config, {}) == {name: name for name in own}
        assert not own & {"key", "timeout", "secure", "httponly", "samesite"}
        assert "lock_waiters" not in own

    def test_an_object(self) -> None:
        """A store made before is used as it is."""
        store = MemoryStore()
        assert SessionManager.from_config(store=store).store is store
        assert SessionMiddleware(called, store=store).manager.store is store

    @pytest.mark.parametrize("config", [None, {}, {"cookie_name": "a"}], ids=repr)
    def test_none_at_all_is_refused(self, config: Any) -> None:
        """Without a store the message shows how to name one; none is made up."""
        message = refused(config)
        assert message.startswith("no store: give session.url")
        assert "file:///var/lib/app/sessions" in message
        with pytest.raises(ConfigurationError, match="no store"):
            SessionMiddleware(called, config)

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"url": "memory:", "type": "memory"}, "url or type, not both"),
            ({"store": MemoryStore(), "url": "memory:"}, "store or url, not both"),
            ({"url": "localhost/0"}, "url has no scheme; write file:///"),
            ({"url": "/var/lib/sessions"}, "url has no scheme; write file:///"),
            ({"url": "~/sessions"}, "url has no scheme; write file:///"),
            ({"url": "./sessions"}, "url has no scheme; write file:///"),
            ({"url": "C:\\sessions"}, "url has no scheme; write file:///"),
            ({"url": ""}, "url has no scheme; write file:///"),
            ({"url": 5}, "url must be text, not int"),
            ({"url": "memcached://a"}, "'memcached:'; known are"),
            ({"url": "memory://localhost"}, "nothing may follow the scheme"),
            ({"url": "file:sessions"}, "after three slashes, as in file:///"),
            ({"url": "file://sessions"}, "after three slashes, as in file:///"),
            ({"url": "file:/var/lib/a"}, "after three slashes, as in file:///"),
            ({"url": "file:"}, "after three slashes, as in file:///"),
            ({"url": "file:///"}, "after three slashes, as in file:///"),
            ({"url": "file:///~/a"}, "~ has no meaning in a file url"),
            ({"url": "file:///a?b=1"}, "? and # are written %3F and %23"),
            ({"url": "postgres://u:p@host/db"}, "write 'postgresql:'"),
            ({"url": "postgres+psycopg://host/db"}, "write 'postgresql+psycopg:'"),
            ({"url": "valkey://host/0"}, "write 'redis:'"),
            ({"type": "File"}, "no store type 'File'; known are"),
            ({"type": "ext:memcached"}, "no store type 'ext:memcached'"),
            ({"store": object}, "the class object"),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_a_wrong_one_is_refused(self, config: dict[str, Any], said: str) -> None:
        """A store that cannot be is refused at construction, with what could."""
        assert said in refused(config)

    @pytest.mark.parametrize(
        "config", [{"type": "file"}, {"type": ["memory"]}], ids=repr
    )
    def test_what_the_store_cannot_do_without(self, config: dict[str, Any]) -> None:
        """A missing folder, or a type that is no name, is a sentence and no traceback."""
        assert refused(config)

    @pytest.mark.parametrize(
        "config",
        [
            {"url": "file://{}/a", "data_dir": "{}/b"},
            {"url": "file://{}/a?durability=fsync"},
            {"url": "file+tar://{}/a"},
            {"url": "memory:?max_size=3"},
        ],
        ids=repr,
    )
    def test_no_part_of_a_url_is_ignored(
        self, config: dict[str, str], tmp_path: Path
    ) -> None:
        """What is written in a url and not understood is refused like any option."""
        assert refused({k: v.format(tmp_path) for k, v in config.items()})

    @pytest.mark.parametrize(
        "url",
        [
            "memcached://u:hunter2@host/0",
            "memory://u:hunter2@host",
            "file://u:hunter2@host/a",
            "postgres://u:hunter2@host/a",
            "u:hunter2@host/a",
            "//u:hunter2@host/a",
            "redis//u:hunter2@[host/a",
            "nosuch://u:hunter2@[host/a",
        ],
    )
    def test_a_password_in_a_url_is_not_told(self, url: str) -> None:
        """A url that is refused may have been meant for a server with a password."""
        assert "hunter2" not in refused(url=url)

    def test_by_a_url_alone(self) -> None:
        """A store beside the one of the sessions, with its defaults."""
        assert isinstance(store_at("memory:", "it"), MemoryStore)
        with pytest.raises(ConfigurationError, match="it must be a store on the serv"):
            store_at("cookie:", "it")

    @pytest.mark.parametrize(
        "config",
        [
            {"type": "cached", "url": "sqlite:///{}/s.db", "cache_url": "memory:"},
            {"url": "sqlite:///{}/s.db", "cache_url": "memory:", "cache_ttl": "5s"},
            {"data_dir": "{}/s", "durability": "fsync", "cache_url": "memory:"},
        ],
        ids=repr,
    )
    def test_a_cache_goes_in_front_of_any(
        self, config: dict[str, str], tmp_path: Path
    ) -> None:
        """``cache_url`` beside what chooses a store; its options reach the store."""
        config = {name: value.format(tmp_path) for name, value in config.items()}
        store = SessionManager.from_config(config).store
        assert isinstance(store, CachedStore)
        behind = SQLAlchemyStore if "url" in config else FileStore
        assert isinstance(store.within, behind)

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"type": "cached", "url": "memory:"}, "needs the option cache_url"),
            (
                {"url": "memory:", "cache_ttl": 5},
                "belongs to the type of store 'cached'",
            ),
            ({"type": "cached", "cache_url": "memory:"}, "no store: give session.url"),
            (
                {"url": "memory:", "cache_url": "cookie:"},
                "cache_url must be a store on",
            ),
            ({"url": "cookie:", "secret": SECRET, "cache_url": "memory:"}, "no cache"),
            ({"url": "memory:", "cache_url": "memory:", "cache_ttl": 0}, "above 0"),
            ({"url": "file:///a/b", "cache_url": "file:///a/b"}, "themselves"),
            ({"url": "memory:", "cache_url": "nothing:"}, "'nothing:'; known are"),
            ({"url": "memory:", "cache_url": "redis://h:p@q:w/x"}, "redis"),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_a_wrong_cache_is_refused(self, config: dict[str, Any], said: str) -> None:
        """One that cannot work, or that is the store itself."""
        assert said in refused(config)

    def test_encryption_goes_around_any(self) -> None:
        """``encrypt`` changes what the store holds, and not how it is chosen."""
        pytest.importorskip("cryptography")
        manager = SessionManager(MemoryStore(), Options(encrypt=True, secret=SECRET))
        assert manager.store.capabilities.encrypts


def run(code: str, **environ: str) -> str:
    """What a fresh interpreter prints that can import the package under test."""
    root = str(Path(wsgisession.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_store_whose_driver_is_missing_names_the_extra() -> None:
    """Without filelock, the message is the command that installs it."""
    message = run(
        """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "filelock":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from wsgisession import ConfigurationError, SessionManager
try:
    SessionManager.from_config({"session.url": "file:///nowhere/at/all"})
except ConfigurationError as error:
    print(error)
"""
    )
    assert message == (
        "the file store needs filelock; install it with: "
        'python -m pip install "wsgisession-middleware[file]"'
    )


ATTIC = '''
from wsgisession.stores.memory import MemoryStore

class AtticStore(MemoryStore):
    """A third party's store, with options of its own."""

    def __init__(
        self,
        url: str = "attic:",
        *,
        cookie_name: str = "?",
        secret: object = None,
        absolute_timeout: "float | None" = 1.0,
        boxes: int = 1,
        patience: float = 2.0,
        tidy: bool = False,
        limit: "float | None" = 3.0,
        label: str = "",
        revocation: object = None,
        **more: object,
    ) -> None:
        self.made_of = dict(locals())
        super().__init__()


class CellarStore(MemoryStore):
    def __init__(self, depth) -> None:
        super().__init__()
'''


def attic_store(config: Any = None, **options: Any) -> Any:
    """The store of a configuration, which remembers what it was made of."""
    return SessionManager.from_config(config, **options).store


@pytest.fixture
def attic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A distribution that brings a store, as if it were installed."""
    name = "a_store_in_the_attic"
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (tmp_path / f"{name}.py").write_text(ATTIC)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        f"[wsgisession.stores]\nattic = {name}:AtticStore\n"
        f"cellar = {name}:CellarStore\ngone = no_such_module:Store\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.usefixtures("attic")
class TestStoresOfThirdParties:
    @pytest.mark.parametrize(
        ("config", "url"),
        [
            ({"session.type": "attic"}, "attic:"),
            ({"session.url": "attic://roof/left"}, "attic://roof/left"),
        ],
        ids=repr,
    )
    def test_are_found_by_type_and_by_url(
        self, config: dict[str, str], url: str
    ) -> None:
        """An entry point is a type, and the scheme of its urls."""
        store = attic_store(config)
        assert type(store).__name__ == "AtticStore"
        assert store.made_of["url"] == url

    def test_share_what_is_an_option_of_ours(self) -> None:
        """Such a parameter is given what ``Options`` holds, converted and checked."""
        made_of = attic_store(
            {
                "session.url": "attic:",
                "session.cookie_name": "a",
                "session.absolute_timeout": "2h",
                "session.idle_timeout": "1h",
                "session.secret": SECRET,
            }
        ).made_of
        assert made_of["cookie_name"] == "a"
        assert made_of["absolute_timeout"] == 7200
        assert made_of["secret"] == (SECRET.encode(),)
        assert attic_store(type="attic").made_of["cookie_name"] == "sid"
        assert (
            attic_store(type="attic", absolute_timeout=None).made_of["absolute_timeout"]
            is None
        )

    def test_are_given_text_as_their_parameters_want_it(self) -> None:
        """Options of a store may come from a file that knows only text."""
        settings = {"boxes": "9", "patience": "2m", "tidy": "yes", "limit": "none"}
        made_of = attic_store(type="attic", label="30", **settings).made_of
        assert [made_of[name] for name in settings] == [9, 120.0, True, None]
        assert made_of["label"] == "30"
        assert attic_store(type="attic", limit="1h").made_of["limit"] == 3600
        assert attic_store(type="attic", boxes=[1]).made_of["boxes"] == [1]

    @pytest.mark.parametrize(
        ("name", "value"), [("boxes", "many"), ("patience", "-1"), ("tidy", "so so")]
    )
    def test_are_not_given_text_that_means_nothing(self, name: str, value: str) -> None:
        """Such text is refused at construction, by the name of the option."""
        assert refused(type="attic", **{name: value}).startswith(f"{name} must be")

    def test_are_given_a_store_for_a_url(self) -> None:
        """The store of the marks of revocation may be named by its url."""
        made_of = attic_store(type="attic", revocation="memory:").made_of
        assert isinstance(made_of["revocation"], MemoryStore)
        assert "url has no scheme" in refused(type="attic", revocation="marks")

    def test_whatever_they_gather_is_no_option(self) -> None:
        """A parameter like ``**more`` takes no misspelt option in."""
        assert "no option 'more'" in refused(type="attic", more="1")
        assert "no option 'boxxes'" in refused(type="attic", boxxes="1")

    def test_say_what_they_cannot_do_without(self) -> None:
        """A parameter without a default is an option that must be given."""
        assert "needs the option depth" in refused(type="cellar")

    def test_have_options_that_can_be_misspelt(self) -> None:
        """The names come from the constructor's signature."""
        assert "did you mean 'boxes'?" in refused(type="attic", boxs="9")

    def test_are_named_among_the_known(self) -> None:
        """For a misspelt type the sentence has those that are installed."""
        assert "attic, cellar, cookie, file, gone, memory" in refused(type="atic")
        assert "attic:" in refused(url="atic://roof")
        assert "attic" in refused({})

    def test_are_not_imported_before_they_are_chosen(self, attic: str) -> None:
        """A broken store that was not chosen breaks nothing."""
        SessionManager.from_config(type="memory")
        assert attic not in sys.modules
        with pytest.raises(ModuleNotFoundError):
            SessionManager.from_config(type="gone")
