"""Every option is checked at construction, in full sentences, and no secret is told."""

from __future__ import annotations

import configparser
import difflib
import inspect
import os
import secrets
import traceback
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsgisession import (
    ConfigurationError,
    JSONSerializer,
    Options,
    SessionManager,
    SessionMiddleware,
)
from wsgisession.options import LONGEST, Settings, flatten
from wsgisession.stores.memory import MemoryStore

from .conftest import SECRET

fuzz = settings(deadline=None, database=None)
ANOTHER = "sYq3hT8mVbN1xKcR7wZ5dJfG2pLaE9uQoI4tHrM6yCk"
HOUR, DAY = 3600.0, 86400.0
MANY_WAITERS = 7


def told(**options: Any) -> str:
    """The sentence with which options are refused."""
    with pytest.raises(ConfigurationError) as caught:
        Options(**options)
    return str(caught.value)


def refused(config: Any = None, **options: Any) -> str:
    """The sentence with which a whole configuration is refused."""
    with pytest.raises(ConfigurationError) as caught:
        SessionManager.from_config(config, **options)
    return str(caught.value)


def called(*args: Any) -> Any:
    """Anything callable."""


# -- what each option takes --------------------------------------------------------------

YES = [(True, True), *((word, True) for word in ("true", "Yes", "ON", "1", " true "))]
NO = [(False, False), *((word, False) for word in ("false", "No", "OFF", "0"))]
LONG = [
    (1, 1),
    (90, 90),
    (1.5, 1.5),
    ("90", 90),
    ("1", 1),
    ("2.5", 2.5),
    ("45s", 45),
    ("30m", 1800),
    ("2h", 2 * HOUR),
    ("14d", 14 * DAY),
    ("2w", 14 * DAY),
    (" 30 m ", 1800),
    (timedelta(minutes=30), 1800),
]
SERIALIZER = JSONSerializer()


class Packer:
    """A serializer of the application's own, and a tally of what it made."""

    def dumps(self, values: dict[str, Any], /) -> bytes:
        return repr(values).encode()

    def loads(self, data: bytes, /) -> dict[str, Any]:
        return {}


class Needy(Packer):
    def __init__(self, key: str) -> None:
        self.key = key


PACKER = Packer()
PATH = f"{__name__}.PACKER"
PATHS = [PATH, f"{__name__}:PACKER", f" {PATH} "]

ACCEPTED: dict[str, list[tuple[Any, Any]]] = {
    "cookie_name": [("sid", "sid"), ("a.b-c_d|e~f", "a.b-c_d|e~f"), ("!", "!")],
    "cookie_path": [
        ("/", "/"),
        ("/shop", "/shop"),
        ("/a%20b/=:@&", "/a%20b/=:@&"),
        (called, called),
    ],
    "cookie_domain": [
        (None, None),
        ("", None),
        ("none", None),
        ("example.com", "example.com"),
        (".example.com", ".example.com"),
        ("localhost", "localhost"),
        (called, called),
    ],
    "cookie_secure": [("auto", "auto"), *YES, *NO],
    "cookie_httponly": [*YES, *NO],
    "cookie_samesite": [
        ("Lax", "Lax"),
        ("lax", "Lax"),
        ("STRICT", "Strict"),
        (" Strict ", "Strict"),
        (False, False),
        ("false", False),
    ],
    "cookie_partitioned": [*NO],
    "cookie_chunks": [(1, 1), (10, 10), ("3", 3)],
    "expire_at_browser_close": [*YES, *NO],
    "profile": [(None, None), ("none", None), ("NIST-AAL2", "nist-aal2")],
    "idle_timeout": LONG,
    "absolute_timeout": [
        ("14d", 14 * DAY),
        ("400d", LONGEST),
        (LONGEST, LONGEST),
        (None, None),
        ("none", None),
        ("", None),
    ],
    "touch_interval": [(0, 0), ("0", 0), (None, None), ("none", None), *LONG],
    "cleanup_every": [(False, False), ("false", False), ("1h", HOUR), (60, 60)],
    "rotate_every": [
        *[(None, None), ("none", None), ("", None)],
        *[(300, 300), ("5m", 300), ("1h", HOUR)],
    ],
    "rotate_grace": [(1, 1), ("1d", DAY), *((g, k) for g, k in LONG if k <= DAY)],
    "max_sessions_per_user": [(None, None), ("none", None), (1, 1), ("5", 5)],
    "at_session_limit": [("evict", "evict"), ("Refuse", "refuse")],
    "secret": [
        (SECRET, (SECRET.encode(),)),
        (SECRET.encode(), (SECRET.encode(),)),
        ([SECRET, ANOTHER], (SECRET.encode(), ANOTHER.encode())),
    ],
    "locking": [(w, w) for w in ("auto", "always", "never", called)],
    "replay": [*YES, *NO],
    "on_conflict": [(w, w) for w in ("ours", "raise", called)],
    "lock_wait": [(0, 0), ("0", 0), *((g, k) for g, k in LONG if k <= HOUR)],
    "lock_lease": [(0.1, 0.1), ("0.5s", 0.5), *((g, k) for g, k in LONG if k <= DAY)],
    "lock_waiters": [(0, 0), ("0", 0), (6, 6), (" 6 ", 6)],
    "cross_site_posts": [*YES, *NO],
    "auto": [*YES, *NO],
    "save_every_request": [*YES, *NO],
    "save_on_error": [*YES, *NO],
    "serializer": [(SERIALIZER, SERIALIZER), *((path, PACKER) for path in PATHS)],
    "max_size": [
        (1024, 1024),
        ("4096", 4096),
        ("512KiB", 512 * 1024),
        ("2 mib", 2 * 1024**2),
    ],
    "encrypt": [*YES, *NO],
    "on_store_error": [
        ("raise", "raise"),
        ("anonymous", "anonymous"),
        ("Anonymous", "anonymous"),
    ],
    "on_event": [(None, None), ("none", None), ("", None), (called, called)],
}

NO_BOOLEAN: list[Any] = [None, "", "maybe", "2", 2, 0.5, [], "truefalse"]
NO_SECONDS: list[Any] = [
    None,
    "",
    "soon",
    "-5",
    "1e3",
    "30M",
    "1h30m",
    "5 minutes",
    True,
    False,
    [],
    float("nan"),
]

REFUSED: dict[str, tuple[str, list[Any]]] = {
    "cookie_name": ("a cookie name", [None, "", "a b", "a=b", "a;b", "ü", 5, b"sid"]),
    "cookie_path": ("begins with /", [None, "", "shop", "/a;b", "/a b", "/ü", 5]),
    "cookie_domain": (
        "a host name",
        ["a b", "a;b", "-a", "a-", "..a", "ü.de", "a:80", "http://a", 5],
    ),
    "cookie_secure": ("'auto', true or false", NO_BOOLEAN),
    "cookie_httponly": ("true or false", NO_BOOLEAN),
    "cookie_samesite": (
        "'Lax', 'Strict', 'None' or False",
        [None, "", "Loose", 5, True, 0],
    ),
    "cookie_partitioned": ("true or false", NO_BOOLEAN),
    "cookie_chunks": ("a whole number from 1 to 10", [None, "", 0, 11, "11", 1.5]),
    "expire_at_browser_close": ("true or false", NO_BOOLEAN),
    "profile": ("'nist-aal1' or 'nist-aal2' or 'nist-aal3'", ["nist", "aal2", 2, True]),
    "idle_timeout": ("seconds", [*NO_SECONDS, 0, -1, "401d", float("inf")]),
    "absolute_timeout": ("seconds", [*NO_SECONDS[2:], 0, "401d", LONGEST + 1]),
    "touch_interval": ("seconds", [*NO_SECONDS[2:], -1]),
    "cleanup_every": ("seconds", [None, True, 0, 59, "59s", "often"]),
    "rotate_every": ("seconds", [*NO_SECONDS[2:], 0, 59, "59s"]),
    "rotate_grace": ("seconds", [*NO_SECONDS, 0, 0.5, "2d"]),
    "max_sessions_per_user": ("a whole number from 1", [0, "0", -1, 1.5, True]),
    "at_session_limit": ("'evict' or 'refuse'", [None, "", "kill", True]),
    "secret": ("secret", [None, "", b"", 5, [5], "short", b"short"]),
    "locking": ("'auto', 'always', 'never' or a callable", [None, "", "often", True]),
    "replay": ("true or false", NO_BOOLEAN),
    "on_conflict": ("'ours', 'raise' or a callable", [None, "", "theirs", True]),
    "lock_wait": ("seconds", [*NO_SECONDS, -1, "2h"]),
    "lock_lease": ("seconds", [*NO_SECONDS, 0, "2d"]),
    "lock_waiters": ("a whole number from 0", [None, "", -1, "-1", 1.5, True, "a"]),
    "cross_site_posts": ("true or false", NO_BOOLEAN),
    "auto": ("true or false", NO_BOOLEAN),
    "save_every_request": ("true or false", NO_BOOLEAN),
    "save_on_error": ("true or false", NO_BOOLEAN),
    "serializer": (
        "",
        [
            *[None, "", "pickle", "yaml", object(), object, 5, Needy],
            *["no_such_module.Packer", f"{__name__}.Nothing", "os.path", "a.", ".a"],
        ],
    ),
    "max_size": ("a whole number from 1024", [None, 1023, "1023", "1GiB", 2048.5]),
    "encrypt": ("true or false", NO_BOOLEAN),
    "on_store_error": ("'raise' or 'anonymous'", [None, "", "ignore", True]),
    "on_event": ("a callable", ["yes", 5]),
}

# What an option needs beside it, so that it can be had.
BESIDE: dict[str, dict[str, Any]] = {
    "idle_timeout": {"absolute_timeout": LONGEST},
}


class TestEveryOption:
    def test_the_tables_here_are_complete(self) -> None:
        """An option that comes later is accepted and refused in these tables too."""
        assert set(ACCEPTED) == set(Options.names())
        assert set(REFUSED) == set(Options.names())

    @pytest.mark.parametrize(
        ("option", "value", "kept"),
        [
            pytest.param(option, value, kept, id=f"{option}-{n}")
            for option, rows in ACCEPTED.items()
            for n, (value, kept) in enumerate(rows)
        ],
    )
    def test_is_kept_in_one_form(self, option: str, value: Any, kept: Any) -> None:
        """However a value is written, the option holds it in one form."""
        given_ = {option: value, **BESIDE.get(option, {})}
        assert getattr(Options(**given_), option) == kept

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            pytest.param(option, value, id=f"{option}-{n}")
            for option, (_, values) in REFUSED.items()
            for n, value in enumerate(values)
        ],
    )
    def test_is_refused_by_name_with_what_is_allowed(
        self, option: str, value: Any
    ) -> None:
        """A refusal begins with the option and says what may stand there."""
        message = told(**{option: value})
        assert message.startswith(option)
        assert REFUSED[option][0] in message

    @pytest.mark.parametrize("option", Options.names())
    def test_can_be_text(self, option: str) -> None:
        """Every option can come from a file that knows only text."""
        assert any(isinstance(value, str) for value, _ in ACCEPTED[option])

    def test_defaults_can_be_given(self) -> None:
        """Options made from the values of the defaults are the defaults."""
        default = Options()
        given_: Any = {name: getattr(default, name) for name in Options.names()}
        again = Options(**given_)
        assert {name: getattr(again, name) for name in Options.names()} == given_

    def test_the_documented_defaults(self) -> None:
        """The defaults are those of the documentation (OWASP ASVS 7.1.1)."""
        default = Options()
        assert default.cookie_name == "sid"
        assert (default.cookie_httponly, default.cookie_secure) == (True, "auto")
        assert (default.cookie_samesite, default.cookie_domain) == ("Lax", None)
        assert (default.idle_timeout, default.absolute_timeout) == (14 * DAY, 30 * DAY)
        assert (default.touch_interval, default.rotate_every) == (60, None)
        assert default.rotate_grace == 300
        assert (default.lock_wait, default.lock_lease) == (5, 30)
        assert default.lock_waiters == 50
        assert default.secret == ()
        assert not default.cross_site_posts
        assert isinstance(default.serializer, JSONSerializer)

    def test_is_named_in_the_types_too(self) -> None:
        """``Settings``, which a type checker reads, names the same options in order."""
        assert tuple(Settings.__annotations__) == Options.names()

    def test_has_a_docstring(self) -> None:
        """Each option says what it is, in the class and nowhere else."""
        source = inspect.getsource(Options)
        for name in Options.names():
            _, found, rest = source.partition(f"\n    {name}: ")
            assert found
            text = rest.partition('\n    """')[2].partition('"""\n')[0]
            assert len(text) > 20, name
            assert "\n\n    " not in rest.partition('\n    """')[0], name

    def test_cannot_be_assigned(self) -> None:
        """What was checked stays: options are the same as long as they live."""
        options: Any = Options()
        for name in Options.names():
            with pytest.raises((AttributeError, TypeError)):
                setattr(options, name, getattr(options, name))
            with pytest.raises((AttributeError, TypeError)):
                delattr(options, name)
        with pytest.raises((AttributeError, TypeError)):
            options.idle_timout = 5
        assert not hasattr(options, "__dict__")

    def test_of_another_name_is_refused(self) -> None:
        """A misspelt keyword is refused by the class itself, with the nearest."""
        assert "did you mean 'idle_timeout'?" in told(idle_timout=5)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("cookie_httponly", 1),
            ("cookie_partitioned", 0),
            ("replay", 1.0),
            ("max_size", 1048576.0),
            ("lock_waiters", 50.0),
        ],
    )
    def test_has_one_meaning_whatever_the_default_is(
        self, option: str, value: Any
    ) -> None:
        """0 and 1 are refused for a flag, whichever of them the default resembles."""
        assert told(**{option: value}).startswith(option)


class TestPitfallUnits:
    """``cookie_expires=0`` meant 2038 to Beaker, and ``'1'`` meant True."""

    def test_one_is_a_second_and_never_a_flag(self) -> None:
        """Text of one digit is a number where a duration is due."""
        assert Options(idle_timeout="1").idle_timeout == 1
        assert "not True" in told(idle_timeout=True)

    def test_zero_is_no_lifetime(self) -> None:
        """A lifetime of nothing is refused instead of meaning for ever."""
        assert "from 1 to" in told(idle_timeout=0)

    def test_beaker_s_ambiguous_option_does_not_exist(self) -> None:
        """``cookie_expires`` is refused; it has had too many meanings."""
        assert "there is no option 'cookie_expires'" in refused(
            {"session.type": "memory", "session.cookie_expires": "1"}
        )


# -- what cannot go together -------------------------------------------------------------


class TestContradictions:
    @pytest.mark.parametrize("name", ["__Host-a", "__host-a", "__HOST-a", "__Secure-a"])
    @pytest.mark.parametrize("secure", [False, "auto"])
    def test_a_prefix_needs_secure(self, name: str, secure: Any) -> None:
        """A prefixed name without Secure is refused: no browser would take the cookie."""
        message = told(cookie_name=name, cookie_secure=secure)
        assert name in message
        assert "needs cookie_secure=True" in message

    @pytest.mark.parametrize(
        "more", [{"cookie_domain": "example.com"}, {"cookie_path": "/shop"}]
    )
    @pytest.mark.parametrize("name", ["__Host-a", "__hOsT-a"])
    def test_a_host_prefix_needs_the_whole_host(
        self, name: str, more: dict[str, str]
    ) -> None:
        """``__Host-`` with a domain or a path is refused."""
        message = told(cookie_name=name, cookie_secure=True, **more)
        assert "needs cookie_path='/' and no cookie_domain" in message

    def test_prefixes_that_keep_their_rule_are_taken(self) -> None:
        """``__Host-`` at the root and ``__Secure-`` with a domain are fine."""
        Options(cookie_name="__Host-a", cookie_secure=True)
        Options(cookie_name="__Secure-a", cookie_secure=True, cookie_domain="a.org")

    @pytest.mark.parametrize("secure", [False, "auto"])
    def test_cross_site_needs_secure(self, secure: Any) -> None:
        """``SameSite=None`` without Secure is refused."""
        message = told(cookie_samesite="None", cookie_secure=secure)
        assert "cookie_samesite='None' needs cookie_secure=True" in message
        Options(cookie_samesite="None", cookie_secure=True)

    @pytest.mark.parametrize("secure", [False, "auto"])
    def test_partitioned_needs_secure(self, secure: Any) -> None:
        """``Partitioned`` without Secure is refused."""
        message = told(cookie_partitioned=True, cookie_secure=secure)
        assert "cookie_partitioned needs cookie_secure=True" in message
        assert Options(cookie_partitioned="yes", cookie_secure=True).cookie_partitioned

    @pytest.mark.parametrize(
        "more",
        [{"cookie_domain": called}, {"cookie_path": called}],
        ids=["domain", "path"],
    )
    def test_a_host_prefix_takes_no_callable(self, more: dict[str, Any]) -> None:
        """What a callable will give is not known, so ``__Host-`` cannot have it."""
        assert "needs cookie_path='/' and no cookie_domain" in told(
            cookie_name="__Host-a", cookie_secure=True, **more
        )

    def test_an_idle_timeout_above_the_absolute_one(self) -> None:
        """It would never be reached, whether the absolute one was given or not."""
        for given_ in (
            {"idle_timeout": "2h", "absolute_timeout": "1h"},
            {"idle_timeout": "31d"},
        ):
            message = told(**given_)
            assert message.startswith("idle_timeout")
            assert "above absolute_timeout" in message
        assert "(2678400 seconds)" in message

    def test_the_default_idle_timeout_is_cut(self) -> None:
        """To shorten one clock is enough: the other follows where it was not given."""
        options = Options(absolute_timeout="12h")
        assert options.idle_timeout == options.absolute_timeout == 12 * HOUR
        assert Options(absolute_timeout=None).idle_timeout == 14 * DAY
        assert (
            Options(absolute_timeout=None, idle_timeout="400d").idle_timeout == LONGEST
        )
        assert Options(idle_timeout="1h", absolute_timeout="1h").idle_timeout == HOUR

    def test_a_lease_above_the_idle_timeout(self) -> None:
        """A session must not expire while a request holds its lock."""
        for given_ in (
            {"idle_timeout": 20, "lock_lease": 21},
            {"absolute_timeout": 20, "lock_lease": 21},
        ):
            message = told(**given_)
            assert message.startswith("lock_lease (21 seconds)")
            assert "idle_timeout (20 seconds)" in message

    def test_the_default_lease_is_cut(self) -> None:
        """A short idle timeout takes the lease along where that was not given."""
        assert Options(idle_timeout=5).lock_lease == 5
        assert Options(absolute_timeout=5).lock_lease == 5
        assert Options(idle_timeout=31).lock_lease == 30
        assert Options(idle_timeout=20, lock_lease=20).lock_lease == 20

    def test_a_rotation_before_the_grace_of_the_last_one(self) -> None:
        """A token is not rotated again while the one before it is still good."""
        for given_ in (
            {"rotate_every": "4m"},
            {"rotate_every": "1h", "rotate_grace": "2h"},
        ):
            message = told(**given_)
            assert message.startswith("rotate_every")
            assert "below rotate_grace" in message
        assert Options(rotate_every=60, rotate_grace=60).rotate_every == 60

    def test_more_than_four_hundred_days_is_refused(self) -> None:
        """What browsers would cut off is refused (RFC 6265bis 5.5)."""
        message = told(absolute_timeout="401d")
        assert "400 days, the longest that browsers keep a cookie" in message


CONTROLS = [chr(code) for code in (*range(32), 127)]


class TestPitfallAttributeInjection:
    """CR, LF, ``;`` or controls in an attribute's value (CPython CVE-2026-0672)."""

    @pytest.mark.parametrize("option", ["cookie_name", "cookie_domain", "cookie_path"])
    @pytest.mark.parametrize(
        "evil",
        [
            *CONTROLS,
            ";",
            "\r\nSet-Cookie: a=b",
            "; Domain=evil.example",
            "\x85",
            "\u2028",
        ],
        ids=ascii,
    )
    def test_never_reaches_a_header(self, option: str, evil: str) -> None:
        """A value that would end the attribute or the header is refused."""
        start = "/a" if option == "cookie_path" else "a"
        for value in (start + evil, start + evil + "a"):
            assert told(**{option: value}).startswith(option)

    @pytest.mark.parametrize("evil", [" ", "\t", ",", "=", '"', "(", "@", "/", "\\"])
    def test_a_name_is_a_token(self, evil: str) -> None:
        """A separator in the name is refused (RFC 9110 5.6.2)."""
        assert told(cookie_name=f"a{evil}b").startswith("cookie_name")

    def test_a_path_is_ascii(self) -> None:
        """A path beyond ASCII is refused at construction, not at the first response."""
        assert told(cookie_path="/\U0001f600").startswith("cookie_path")

    @pytest.mark.parametrize("name", ["path", "Expires", "Secure", "max-age", "$sid"])
    def test_a_name_that_cannot_be_written_is_refused(self, name: str) -> None:
        """A name that the writer of cookies will not write is refused at construction."""
        assert told(cookie_name=name).startswith("cookie_name")


# -- secrets -----------------------------------------------------------------------------

# Secrets that products and tutorials have published; each stands in many deployments.
PLACEHOLDERS = {
    "superset": "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET",
    "supabase-jwt": "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "supabase-dashboard": "this_password_is_insecure_and_should_be_updated",
    "kratos": "PLEASE-CHANGE-ME-I-AM-VERY-INSECURE",
    "jhipster": "my-secret-token-to-change-in-production",
    "django": "django-insecure-#8dh8-hxh*8j93l2k@dfu8n1rr@s2-tyezw9-iw33g1@y)bgoa",
    "langfuse": "0" * 64,
    "alphabet": "abcdefghijklmnopqrstuvwxyz012345",
    "hex-digits": "0123456789abcdef0123456789abcdef",
    "one-letter": "x" * 32,
    "superset-docs": "YOUR_OWN_RANDOM_GENERATED_SECRET_KEY",
    "redash": "c292a0a3aa32397cdb050e233733900f",
    "fastapi": "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "flask": "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "jwt.io": "a-string-secret-at-least-256-bits-long",
    "nacos": "SecretKey" + "0123456789" * 6,
    "nacos-base64": "VGhpc0lzTXlDdXN0b21TZWNyZXRLZXkwMTIzNDU2Nzg=",
    "paperless": "e11fl1oa-*ytql8p)(06fbj4ukrlo+n7k&q5+$1md7i+mge=ee",
    "dify": "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U",
    "gitlab": "long-and-random-alphanumeric-string",
    "supabase-realtime": (
        "UpNVntn3cDxHJpq99YMc1T1AQgQpc8kfYTuRgBiYa15BLrx8etQoXz3gZv1/u2oq"
    ),
    "ezplatform": "ThisEzPlatformTokenIsNotSoSecret_PleaseChangeIt",
    "netbox": "r(m)9nLGnz$(_q3N4z1k(EFsMCjjjzx08x9VhNVcfd%6RF#r!6DE@+V5Zk2X",
    "librechat": "16f8c0ef4a5d391b26034086c628469d3f9f497f08163ab9b40137092f2909ef",
    "apisix": "edd1c9f034335f136f87ad84b625c8f1",
    "zitadel": "MasterkeyNeedsToHave32Characters",
    "plane": "60gp0byfz2dvffa45cxl20p1scy9xbpf6d8c5y0geejgkyp1b5",
    "directus": "6116487b-cda1-52c2-b5b5-c8022c45e263",
    "telerik": "PrivateKeyForEncryptionOfRadAsyncUploadConfiguration",
    "ten-digits": "01234567890123456789012345678901",
}
SHORT_PLACEHOLDERS = [
    "changeme",
    "dev",
    "secret",
    "keyboard cat",
    "temporary_key",
    "thisISaSECRET_1234",
    "seekrit",
    "itsaseekreet",
    "your-256-bit-secret",
    "ThisTokenIsNotSoSecretChangeIt",
    "\x02\x01thisismyscretkey\x01\x02\\e\\y\\y\\h",
]


class TestSecrets:
    """itsdangerous takes an empty secret; Superset and Airflow shipped a default one."""

    @pytest.mark.parametrize("secret", ["", b"", "   ", [""]], ids=repr)
    def test_an_empty_one_is_refused(self, secret: Any) -> None:
        """An empty secret is refused, and the way to make one is given."""
        message = told(secret=secret)
        assert "secret is empty" in message
        assert "secrets.token_urlsafe(32)" in message

    @pytest.mark.parametrize("secret", [[], (), "\n", ["", ""]], ids=repr)
    def test_a_list_without_any_is_refused(self, secret: Any) -> None:
        """A list that turned out empty must not turn signing off in silence."""
        assert "secret is empty" in told(secret=secret or list(secret))

    def test_one_that_is_missing_is_refused(self) -> None:
        """``os.environ.get`` of a variable that is not set does not turn signing off."""
        assert told(secret=None).startswith("secret must be")

    @pytest.mark.parametrize("length", [1, 16, 31])
    def test_a_short_one_is_refused(self, length: int) -> None:
        """Less than 32 bytes is refused, with the number that was found."""
        assert f"it has {length} bytes and needs 32" in told(secret=SECRET[:length])

    def test_the_length_is_counted_in_octets(self) -> None:
        """Thirty-two octets suffice, in bytes or in text of fewer characters."""
        Options(secret=SECRET[:32])
        Options(secret=SECRET[:28] + "äö")

    @pytest.mark.parametrize("product", PLACEHOLDERS)
    def test_a_placeholder_is_refused(self, product: str) -> None:
        """A secret that a product has published is refused (CVE-2023-27524).

        So is one that looks random, but stands in everybody's documentation.
        """
        assert "is a placeholder" in told(secret=PLACEHOLDERS[product])

    @pytest.mark.parametrize("secret", SHORT_PLACEHOLDERS, ids=ascii)
    def test_a_short_placeholder_is_refused(self, secret: str) -> None:
        """The famous short ones fall to the length."""
        assert "is too short" in told(secret=secret)

    def test_a_placeholder_is_refused_at_any_place(self) -> None:
        """An old secret verifies as well as the newest, so it is checked as well."""
        assert "is a placeholder" in told(secret=[SECRET, PLACEHOLDERS["superset"]])

    @pytest.mark.parametrize(
        "draw",
        [
            lambda: secrets.token_urlsafe(32),
            lambda: secrets.token_hex(32),
            lambda: os.urandom(32),
        ],
        ids=["token_urlsafe", "token_hex", "urandom"],
    )
    def test_a_random_one_is_never_refused(self, draw: Any) -> None:
        """No random secret is taken for a placeholder: 10,000 of each kind."""
        for _ in range(10_000):
            Options(secret=draw())

    def test_a_hex_secret_of_few_digits_is_not_refused(self) -> None:
        """16 bytes in hex lack seven of the digits once in ten thousand draws."""
        Options(secret="3b7d8288a11163b8d6b27b6112d7ba27")

    @fuzz
    @given(st.binary(min_size=32, max_size=200))
    def test_bytes_are_kept_octet_for_octet(self, secret: bytes) -> None:
        """Random bytes are neither stripped nor split, whatever they contain."""
        assume(len(set(secret)) >= 10)
        assert Options(secret=secret).secret == (secret,)

    def test_bytes_with_blanks_and_newlines_stay_one_secret(self) -> None:
        """Only text is split into lines."""
        secret = b"\n " + SECRET.encode() + b" \n" + ANOTHER.encode() + b"\n"
        assert Options(secret=secret).secret == (secret,)

    @pytest.mark.parametrize(
        "given_",
        [
            [SECRET, ANOTHER],
            (SECRET, ANOTHER),
            [SECRET.encode(), ANOTHER],
            iter([SECRET, ANOTHER]),
            f"{SECRET}\n{ANOTHER}",
            f"\n  {SECRET}\n  {ANOTHER}\n",
            f"{SECRET}\r\n{ANOTHER}\r\n",
        ],
        ids=["list", "tuple", "mixed", "iterator", "lines", "ini", "crlf"],
    )
    def test_several_keep_their_order(self, given_: Any) -> None:
        """Secrets are kept newest first, as a list or as lines of text."""
        assert Options(secret=given_).secret == (SECRET.encode(), ANOTHER.encode())

    def test_text_that_is_no_text_is_refused(self) -> None:
        """A variable of the environment that is not UTF-8 is refused in a sentence."""
        assert told(secret="\udcff" * 40).startswith("secret")


class TestSerializers:
    def test_json_by_its_name(self) -> None:
        """The word "json" is our own serializer, in whatever case."""
        for word in ("json", " JSON "):
            assert isinstance(Options(serializer=word).serializer, JSONSerializer)

    @pytest.mark.parametrize("value", [Packer, f"{__name__}.Packer"], ids=str)
    def test_a_class_is_made(self, value: Any) -> None:
        """A class, or the dotted path of one, is called without arguments."""
        made = Options(serializer=value).serializer
        assert type(made).__name__ == "Packer"
        assert made.dumps({}) == b"{}"

    def test_a_class_that_needs_arguments(self) -> None:
        """It is refused in a sentence, with the cause chained."""
        with pytest.raises(ConfigurationError, match="without arguments") as caught:
            Options(serializer=Needy)
        assert isinstance(caught.value.__cause__, TypeError)

    @pytest.mark.parametrize("path", ["no_such_module.Packer", f"{__name__}.Nothing"])
    def test_a_path_that_leads_nowhere(self, path: str) -> None:
        """It is refused by name, with the cause chained."""
        with pytest.raises(ConfigurationError, match="cannot be imported") as caught:
            Options(serializer=path)
        assert path in str(caught.value)
        assert caught.value.__cause__ is not None

    def test_pickle_by_a_word_is_refused(self) -> None:
        """No setting of one word chooses pickle: that takes the module itself."""
        assert told(serializer="pickle").startswith("serializer must be 'json' or")


class TestSecretsAreNotTold:
    def test_by_no_repr(self) -> None:
        """Nothing that holds a secret shows it."""
        manager = SessionManager(MemoryStore(), Options(secret=[SECRET, ANOTHER]))
        shown = [manager.options, manager, SessionMiddleware(called, manager=manager)]
        for secret in (SECRET, ANOTHER):
            assert all(secret not in repr(each_) for each_ in shown)
            assert all(secret not in str(each_) for each_ in shown)

    @pytest.mark.parametrize(
        "options",
        [
            {"secret": SECRET[:31]},
            {"secret": [ANOTHER, SECRET[:31]]},
            {"secret": [SECRET[:31].encode()]},
            {"secret": {SECRET: 5, "x": 5}},
            {"secret": bytearray(SECRET, "ascii")},
            {"secret": [[SECRET]]},
            {"secret": SECRET, "idle_timeout": "soon"},
            {"secret": SECRET, "cookie_samesite": "None"},
            {"secret": SECRET, "scret": SECRET},
            {"secret": SECRET, "secrets": SECRET},
            {"secret": SECRET, "type": "nosuch"},
            {"secret": SECRET, "type": "memory", "url": "memory:"},
        ],
        ids=lambda options: "-".join(options),
    )
    def test_by_no_message(self, options: dict[str, Any]) -> None:
        """A refusal shows no secret, neither its own nor another option's."""
        config = {"type": "memory", **options}
        with pytest.raises(ConfigurationError) as caught:
            SessionManager.from_config(config)
        printed = "".join(traceback.format_exception(caught.value))
        # The traceback quotes lines of this file, none of which spells a secret out.
        assert SECRET[:31] not in printed
        assert ANOTHER not in printed


# -- from a mapping ----------------------------------------------------------------------

INI = f"""
[app:main]
use = egg:shop
debug = true
colour = red
beaker.session.key = of-beaker
session.type = memory
session.cookie_name = shop
session.idle_timeout = 30m
session.absolute_timeout = 12h
session.cookie_secure = true
session.cookie_samesite = strict
session.rotate_every = none
session.max_size = 64 KiB
session.lock_waiters = {MANY_WAITERS}
session.secret =
    {SECRET}
    {ANOTHER}
"""


class TestPrefix:
    def test_an_ini_file_of_a_whole_application(self) -> None:
        """One section of an ``.ini`` file is a configuration as it stands."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(INI)
        options = SessionManager.from_config(parser["app:main"]).options
        assert options.cookie_name == "shop"
        assert (options.idle_timeout, options.absolute_timeout) == (1800, 12 * HOUR)
        assert (options.cookie_secure, options.cookie_samesite) == (True, "Strict")
        assert (options.rotate_every, options.max_size) == (None, 64 * 1024)
        assert options.secret == (SECRET.encode(), ANOTHER.encode())

    def test_where_it_stands_the_others_belong_to_others(self) -> None:
        """With one prefixed key, bare ones that are no option of ours are ignored."""
        config = {"session.type": "memory", "colour": "red", "url": "postgresql://"}
        assert flatten(config, {}) == {"type": "memory"}

    @pytest.mark.parametrize("name", Options.names())
    def test_one_that_is_ours_is_refused_without_it(self, name: str) -> None:
        """An option whose prefix was forgotten is refused, not ignored."""
        message = refused({"session.type": "memory", name: "1"})
        assert message.startswith(f"{name} stands beside settings that begin with")
        assert f"write session.{name}" in message

    def test_without_it_all_keys_are_ours(self) -> None:
        """With no prefixed key, a bare unknown one is refused."""
        assert "there is no option 'colour'" in refused(type="memory", colour="red")

    def test_prefixes_of_others_are_no_prefix(self) -> None:
        """``beaker.session.`` and ``sessions.`` are not ours."""
        config = {"session.type": "memory", "beaker.session.type": "x", "sessions.x": 1}
        assert flatten(config, {}) == {"type": "memory"}

    def test_code_wins_over_the_file(self) -> None:
        """What is given in code replaces the setting of the file."""
        config = {"session.type": "memory", "session.idle_timeout": "1h"}
        manager = SessionManager.from_config(config, idle_timeout="2h")
        assert manager.options.idle_timeout == 2 * HOUR

    def test_names_are_strings(self) -> None:
        """A key that is no string is refused, whatever it was meant for."""
        assert "names of options are strings, not 5" in refused({5: 1})


class TestPitfallAliases:
    """An alias (``timeout``) that shadowed a store's own option: dead after 2 s."""

    @pytest.mark.parametrize(
        ("other", "ours"),
        [
            ("timeout", "'absolute_timeout' or 'idle_timeout'"),
            ("secure", "'cookie_secure'"),
            ("httponly", "'cookie_httponly'"),
            ("samesite", "'cookie_samesite'"),
            ("data_serializer", "'serializer'"),
            ("domain", "'cookie_domain'"),
        ],
    )
    def test_a_name_of_beaker_s_is_told_ours(self, other: str, ours: str) -> None:
        """There is one name for each option; the sentence leads from others to it."""
        assert f"did you mean {ours}?" in refused({"type": "memory", other: "1"})
        assert "there is no option" in refused({"type": "memory", "key": "beaker"})


class TestPitfallMisspelling:
    """Beaker took misspelt options in silence, and found a wrong type at a request."""

    @pytest.mark.parametrize(
        ("wrong", "near"),
        [
            ("cookie_secur", "cookie_secure"),
            ("cookie-name", "cookie_name"),
            ("idle_timout", "idle_timeout"),
            ("lock_waiter", "lock_waiters"),
            ("serialiser", "serializer"),
            ("on_events", "on_event"),
            ("secrets", "secret"),
        ],
    )
    def test_names_the_nearest(self, wrong: str, near: str) -> None:
        """A misspelt option is refused with the one that was meant."""
        for config in ({"type": "memory", wrong: 1}, {f"session.{wrong}": 1}):
            config = (
                {"session.type": "memory", **config} if wrong not in config else config
            )
            message = refused(config)
            assert f"there is no option {wrong!r}" in message
            assert f"did you mean {near!r}?" in message

    @pytest.mark.parametrize("option", Options.names())
    def test_a_letter_lost_is_found_again(self, option: str) -> None:
        """Every option is found by its name with one letter missing."""
        wrong = option[:-2] + option[-1]
        assert difflib.get_close_matches(wrong, [option])
        assert f"did you mean {option!r}?" in refused({"type": "memory", wrong: "1"})

    def test_something_far_off_is_told_what_there_is(self) -> None:
        """Without a near name, all are given."""
        message = refused(type="memory", zzzzzz=1)
        assert all(name in message for name in Options.names())

    def test_at_construction_of_the_middleware(self) -> None:
        """Nothing waits for the first request."""
        with pytest.raises(ConfigurationError, match="did you mean 'cookie_path'"):
            SessionMiddleware(called, {"session.type": "memory"}, cookie_pth="/")
        with pytest.raises(ConfigurationError, match="no store type 'memroy'"):
            SessionMiddleware(called, {"session.type": "memroy"})

    def test_an_option_of_a_store_that_was_not_chosen(self) -> None:
        """An option that the chosen store does not have is unknown."""
        message = refused(type="memory", durability="fsync")
        assert "there is no option 'durability'" in message

    def test_beside_a_store_of_one_s_own(self) -> None:
        """With a store made before, its options have no place in the settings."""
        assert "no option 'data_dir'" in refused(store=MemoryStore(), data_dir="/x")

    def test_settings_beside_a_manager_are_refused(self) -> None:
        """Settings that a manager given would override in silence are refused."""
        manager = SessionManager(MemoryStore())
        for config, options in (({"type": "memory"}, {}), (None, {"replay": False})):
            with pytest.raises(ConfigurationError, match="not both"):
                SessionMiddleware(called, config, manager=manager, **options)
