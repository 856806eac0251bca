"""Programs: what a few requests do, drawn from a seed, as plain data.

A verb is a tuple, its name first.  Every value that is written holds a marker that occurs
once in a program, so that what became of a write can be read off.  Rare sequences are
drawn more often than chance would have them.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

Verb = tuple[Any, ...]

READS = frozenset(("get", "hold", "len", "look", "sleep", "who"))
"""Verbs that only look."""
STRONG = frozenset(("login", "regenerate", "flush", "clear", "end_others"))
"""Verbs after which a request must not be run again, or that end something."""
ENDS = frozenset(("flush", "clear"))
KEYS = ("a", "b", "c")
USERS = ("ann", "bob")


class Request(NamedTuple):
    """One request, or one task of an administrator."""

    name: str
    verbs: tuple[Verb, ...]
    method: str = "POST"
    browser: str = "main"
    site: str = "same-origin"
    scheme: str = "https"
    after: str = ""
    """The request whose answer must have arrived before this one is sent."""
    delay: float = 0.0
    """Seconds that pass before it is sent."""
    answer: str = "kept"
    """Or "dropped": a second click, a closed tab."""
    query: str = ""
    skew: float = 0.0
    """Seconds by which the clock of its host is ahead."""

    @property
    def is_safe(self) -> bool:
        return self.method == "GET"

    def flat(self) -> list[Verb]:
        """All verbs, those in blocks too."""
        return list(_flat(self.verbs))

    def names(self) -> set[str]:
        return {verb[0] for verb in self.flat()}


class Fault(NamedTuple):
    """What happens at one call of the store: fail, lose, die, die after, rollback."""

    request: str
    call: int
    """Which call of this request, from 0."""
    kind: str


class Program(NamedTuple):
    """What is run: the options, the browsers, the requests and the faults."""

    requests: tuple[Request, ...]
    options: tuple[tuple[str, Any], ...] = ()
    user: str | None = None
    """Who is logged in at the beginning."""
    browsers: tuple[tuple[str, str], ...] = (("main", "own"),)
    """Names and kinds: own (a session of its own), same (shares the jar of main), copy (a
    copy of main's token), forged, none (no cookie)."""
    faults: tuple[Fault, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.options)

    def size(self) -> int:
        verbs = sum(2 + len(request.flat()) for request in self.requests)
        odd = sum(
            (r.delay > 0) + (r.skew != 0) + (r.answer != "kept") + (r.site != "none")
            for r in self.requests
        )
        extra = len(self.options) + len(self.faults) + len(self.browsers)
        return 4 * verbs + odd + extra + (self.user is not None)


def _flat(verbs: tuple[Verb, ...]) -> Any:
    for verb in verbs:
        if verb[0] in ("with", "edit", "try"):
            yield (verb[0],)
            yield from _flat(verb[1])
        else:
            yield verb


def show(program: Program) -> str:
    """The program as a person reads it."""
    lines = []
    if program.options:
        lines.append("options  " + ", ".join(f"{k}={v!r}" for k, v in program.options))
    if program.user:
        lines.append(f"user     {program.user}")
    extra = [f"{n}: {k}" for n, k in program.browsers if (n, k) != ("main", "own")]
    if extra:
        lines.append("browsers " + ", ".join(extra))
    for request in program.requests:
        notes = [
            f"{name}={getattr(request, name)!r}"
            for name in Request._fields[3:]
            if getattr(request, name) != Request._field_defaults[name]
        ]
        head = f"{request.name} {request.method}"
        lines.append(
            f"{head:8} {show_verbs(request.verbs)}  {' '.join(notes)}".rstrip()
        )
    lines += [
        f"fault    {f.kind} at call {f.call} of {f.request}" for f in program.faults
    ]
    return "\n".join(lines)


def show_verbs(verbs: tuple[Verb, ...]) -> str:
    said = []
    for name, *rest in verbs:
        if name in ("with", "edit", "try"):
            said.append(f"{name} [{show_verbs(rest[0])}]")
        else:
            said.append(f"{name}({', '.join(map(str, rest))})")
    return "; ".join(said)


# -- drawing ---------------------------------------------------------------------------


class Drawer:
    """Draws a program from one random number generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.markers = 0

    def marker(self) -> str:
        self.markers += 1
        return f"m{self.markers}"

    def one(self, *pairs: tuple[Any, float]) -> Any:
        values, weights = zip(*pairs, strict=True)
        return self.random.choices(values, weights)[0]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def program(self, kind: str | None = None) -> Program:
        kind = kind or self.one(
            ("values", 40),
            ("identity", 35),
            ("readers", 10),
            ("faults", 15),
            ("shared", 10),
        )
        drawn: Program = getattr(self, f"_{kind}")()
        return drawn

    # -- values ------------------------------------------------------------------------

    def value_verb(self, held: bool = True) -> Verb:
        key, other = self.random.choice(KEYS), self.random.choice(KEYS)
        name = self.one(
            ("get", 3), ("put", 3), ("add", 6), ("push", 3), ("inc", 3), ("derive", 4),
            ("hold", 3 * held), ("heldpush", 4 * held), ("putheld", 3 * held),
            ("useold", 2), ("del", 1), ("keys", 1), ("save", 3), ("unlock", 1),
            ("lock", 1), ("trylock", 0.5), ("with", 3), ("rotate", 1), ("revert", 0.5),
            ("discard", 0.5), ("force", 0.5), ("sleep", 0.5), ("expiry", 0.3),
            ("pop", 1), ("update", 1), ("drain", 0.7),
        )  # fmt: skip
        if name in ("get", "hold", "del"):
            return (name, key)
        if name in ("put", "add", "push", "heldpush", "putheld", "keys", "pop"):
            return (name, key, self.marker())
        if name in ("derive", "useold"):
            return (name, other, key, self.marker())
        if name == "update":
            return (name, key, other, self.marker())
        if name == "with":
            inner = [self.value_verb(held) for _ in range(self.random.randint(1, 3))]
            return (name, tuple(inner))
        if name == "sleep":
            return (name, self.one((0.5, 5), (2, 2), (61, 1)))
        if name == "expiry":
            return (name, self.one((3600, 1), (None, 1)))
        return (name,)

    def value_verbs(self) -> tuple[Verb, ...]:
        if self.chance(0.25):  # rare sequences
            a, b = self.random.sample(KEYS, 2)
            m = self.marker
            return self.random.choice(
                (
                    (("putheld", a, m()), ("save",), ("heldpush", a, m())),
                    (("get", a), ("with", (("derive", b, a, m()),)), ("get", b)),
                    (("get", a), ("save",), ("get", b), ("useold", b, a, m())),
                    (("add", a, m()), ("save",), ("add", a, m())),
                    (("get", a), ("put", b, m()), ("lock",), ("get", a),
                     ("useold", b, a, m())),
                    (("with", (("add", a, m()), ("with", (("add", b, m()),)),
                               ("add", a, m()))),),
                    (("hold", a), ("with", (("get", a),)), ("heldpush", a, m())),
                    (("get", a), ("lock",), ("useold", b, a, m()), ("unlock",)),
                    (("inc",), ("rotate",), ("inc",)),
                    (("with", (("add", a, m()),)), ("add", b, m())),
                )
            )  # fmt: skip
        return tuple(self.value_verb() for _ in range(self.random.randint(1, 5)))

    def request(self, number: int, verbs: tuple[Verb, ...], **given: Any) -> Request:
        name = "ABCDE"[number]
        method = given.pop("method", None) or self.one(("POST", 5), ("GET", 5))
        site = self.one(("same-origin", 12), ("cross-site", 1), ("none", 1), ("", 1))
        return Request(
            name,
            verbs,
            method,
            site=given.pop("site", site),
            scheme=self.one(("https", 6), ("http", 1)),
            **given,
        )

    def settings(self) -> tuple[tuple[str, Any], ...]:
        drawn: dict[str, Any] = {}
        if self.chance(0.35):
            drawn["locking"] = self.one(("always", 1), ("never", 1))
        if self.chance(0.1):
            drawn["replay"] = False
        if self.chance(0.25):
            drawn["on_conflict"] = self.one(("raise", 2), ("callable", 1))
        if self.chance(0.05):
            drawn["auto"] = False
        if self.chance(0.06):
            drawn["save_every_request"] = True
        if self.chance(0.06):
            drawn["save_on_error"] = True
        if self.chance(0.15):
            drawn["rotate_every"] = 60
            drawn["rotate_grace"] = 60
        return tuple(drawn.items())

    def _values(self) -> Program:
        count = self.one((2, 6), (3, 4), (4, 1))
        requests = []
        for number in range(count):
            if self.chance(0.08):
                verbs = tuple(self.value_verb(False) for _ in range(2))
                inner = tuple(v for v in verbs if v[0] in VALUES) or (("inc",),)
                requests.append(
                    Request("ABCDE"[number], (("edit", inner),), "ADMIN", "")
                )
                continue
            verbs = self.value_verbs()
            if self.chance(0.05):
                verbs = (*verbs, ("fail",))
            if self.chance(0.05):
                verbs = (*verbs, ("stream",), self.value_verb())
            if self.chance(0.05):
                verbs = (("no_replay",), *verbs)
            browser = self.one(("main", 5), ("tab", 2))
            requests.append(self.request(number, verbs, browser=browser))
        settings = self.settings()
        if any(name == "rotate_every" for name, _ in settings):
            requests[0] = requests[0]._replace(delay=61.0)
        if {("save_every_request", True), ("auto", False)} & set(settings):
            for index, request in enumerate(requests):  # other rules when headers leave
                verbs = tuple(v for v in request.verbs if v[0] != "stream")
                requests[index] = request._replace(verbs=verbs)
        return Program(
            tuple(requests),
            settings,
            self.one((None, 4), ("ann", 1)),
            (("main", "own"), ("tab", "same")),
        )

    # -- identity ----------------------------------------------------------------------

    def identity_verbs(self) -> tuple[Verb, ...]:
        a, m = self.random.choice(KEYS), self.marker
        user = self.one(("ann", 5), ("bob", 2))
        login = ("login", user, m())
        whole = self.one(
            ((login,), 8),
            ((("add", a, m()), login), 2),
            ((login, ("add", a, m())), 2),
            ((login, ("save",)), 2),
            ((("add", a, m()), ("save",), login, ("rotate",)), 1),
            ((("save",), login), 1),
            ((("flush",),), 8),
            ((("get", a), ("flush",)), 2),
            ((("flush",), ("put", a, m())), 1),
            ((("clear",), ("put", a, m())), 2),
            ((("clear",), ("put", "user_id", m()), login), 1),
            ((("clear",),), 1),
            ((("flush",), login), 1),
            ((("rotate",),), 4),
            ((("rotate",), ("end_others",)), 2),
            ((("end_others",),), 2),
            ((("add", a, m()), ("rotate",)), 2),
            ((("rotate",), ("save",), ("rotate",)), 1),
            ((("regenerate",),), 3),
            ((("regenerate",), ("rotate",)), 1),
            ((("rotate",), ("regenerate",)), 1),
            ((("add", a, m()), ("regenerate",)), 1),
            ((("with", (("add", a, m()), ("rotate",))),), 1),
            ((("add", a, m()),), 6),
            ((("get", a),), 5),
            ((("inc",),), 4),
            ((("get", a), ("sleep", 1), ("add", a, m())), 2),
            ((("save",), ("add", a, m())), 1),
            ((("lock",), ("flush",)), 1),
            ((("fail",),), 0.5),
            ((("flush",), ("fail",)), 0.7),
            ((("rotate",), ("save",), ("fail",)), 0.5),
            ((login, ("fail",)), 0.5),
        )
        return tuple(whole)

    def _storm(self) -> Program:
        """Rotations, answers to them that are late or lost, and nothing else."""
        requests = []
        for number in range(self.random.randint(2, 5)):
            a = self.random.choice(KEYS)
            verbs = self.one(
                ((("rotate",),), 5),
                ((("get", a),), 3),
                ((("add", a, self.marker()),), 2),
            )
            requests.append(
                self.request(
                    number,
                    verbs,
                    method="POST",
                    site="same-origin",
                    delay=self.one((0.0, 3), (61.0, 2), (301.0, 4)),
                    answer=self.one(("kept", 2), ("dropped", 1)),
                )
            )
        return Program(tuple(requests))

    def _identity(self) -> Program:
        if self.chance(0.12):
            return self._storm()
        browsers = [("main", "own"), ("tab", "same")]
        if self.chance(0.4):
            browsers.append(("copy", "copy"))
        if self.chance(0.25):
            browsers.append(("device", "own"))
        if self.chance(0.1):
            browsers.append(("forged", "forged"))
        requests: list[Request] = []
        for number in range(self.one((2, 4), (3, 4), (4, 2))):
            requests.append(self._identity_request(number, browsers, requests))
        settings: dict[str, Any] = {}
        if self.chance(0.25):
            settings = {"rotate_every": 60, "rotate_grace": 60}
            requests[0] = requests[0]._replace(delay=61.0)
        if self.chance(0.15):
            settings["locking"] = self.one(("always", 1), ("never", 1))
        return Program(
            tuple(requests),
            tuple(settings.items()),
            self.one((None, 4), ("ann", 5), ("bob", 1)),
            tuple(browsers),
        )

    def _identity_request(
        self, number: int, browsers: list[tuple[str, str]], before: list[Request]
    ) -> Request:
        if self.chance(0.08):
            verb = self.one((("end",), 2), (("end_user", "ann"), 3))
            return Request("ABCDE"[number], (verb,), "ADMIN", "")
        browser = self.random.choice([name for name, _ in browsers] + ["main"])
        after = ""
        if before and self.chance(0.3):
            known = [r.name for r in before if r.answer == "kept"]
            after = self.random.choice(known) if known else ""
        verbs = self.identity_verbs()
        strong = {verb[0] for verb in verbs} & {*STRONG, "rotate"}
        return self.request(
            number,
            verbs,
            method="POST" if strong and self.chance(0.8) else None,
            browser=browser,
            after=after,
            delay=self.one((0.0, 12), (11.0, 1), (61.0, 1), (400.0, 0.5)),
            answer=self.one(("kept", 8), ("dropped", 2)),
        )

    # -- readers -----------------------------------------------------------------------

    def _readers(self) -> Program:
        requests = []
        for number in range(self.random.randint(1, 2)):
            # And a write beside them, below.
            look = [(self.one(("get", 3), ("hold", 1)), self.random.choice(KEYS))]
            if self.chance(0.4):
                look += [("sleep", 0.5), ("get", "a")]
            if self.chance(0.2):
                look += [("len",)]
            requests.append(self.request(number, tuple(look), method="GET"))
        for number in range(len(requests), len(requests) + 1):
            verbs = (self.value_verb(False), ("sleep", 0.5), *self.value_verbs())
            if self.chance(0.3):
                verbs = (("sleep", 0.5), ("expiry", 3600))
            requests.append(self.request(number, verbs, method="POST"))
        settings: dict[str, Any] = {}
        if self.chance(0.5):
            settings |= {"rotate_every": 60, "rotate_grace": 60}
        if self.chance(0.1):
            settings["locking"] = "never"
        delay = self.one((0.0, 1), (61.0, 2))
        requests[0] = requests[0]._replace(delay=delay)
        self.random.shuffle(requests)
        return Program(tuple(requests), tuple(settings.items()))

    # -- values of a user --------------------------------------------------------------

    def shared_verb(self) -> Verb:
        name = self.one(
            ("upush", 6), ("uinc", 5), ("uget", 2), ("usave", 1.5), ("ulock", 1),
            ("add", 2), ("inc", 2), ("get", 1), ("save", 1.5), ("unlock", 0.7),
            ("with", 1.5), ("sleep", 0.3), ("rotate", 0.5), ("lock", 0.5),
        )  # fmt: skip
        if name == "upush":
            return (name, self.marker())
        if name in ("add", "get"):
            key = self.random.choice(KEYS)
            return (name, key, self.marker()) if name == "add" else (name, key)
        if name == "with":
            return (name, tuple(self.shared_verb() for _ in range(2)))
        return (name, 0.5) if name == "sleep" else (name,)

    def _shared(self) -> Program:
        """Two sessions of one user, who share values."""
        requests = []
        for number in range(self.one((2, 6), (3, 4))):
            if self.chance(0.08):
                verb = self.one((("end",), 2), (("end_user", "ann"), 1))
                requests.append(Request("ABCDE"[number], (verb,), "ADMIN", ""))
                continue
            verbs = tuple(self.shared_verb() for _ in range(self.random.randint(1, 4)))
            if self.chance(0.07):
                verbs = (*verbs, self.one((("flush",), 2), (("fail",), 1)))
            browser = self.one(("main", 3), ("device", 3), ("tab", 1))
            requests.append(self.request(number, verbs, browser=browser))
        settings: dict[str, Any] = {}
        if self.chance(0.3):
            settings["locking"] = self.one(("always", 1), ("never", 1))
        if self.chance(0.1):
            settings["replay"] = False
        if self.chance(0.2):
            settings["on_conflict"] = self.one(("raise", 2), ("callable", 1))
        browsers = (("main", "own"), ("tab", "same"), ("device", "own"))
        return Program(tuple(requests), tuple(settings.items()), "ann", browsers)

    # -- faults ------------------------------------------------------------------------

    def _faults(self) -> Program:
        program: Program = self.one(
            (self._identity, 5), (self._values, 5), (self._shared, 1)
        )()
        kind = self.one(
            ("fail", 4), ("lose", 4), ("die", 2), ("die after", 2), ("skew", 2),
            ("rollback", 1),
        )  # fmt: skip
        if kind == "skew":
            return self._skewed(program)
        faults = []
        for _ in range(self.one((1, 3), (2, 1))):
            request = self.random.choice(program.requests)
            faults.append(Fault(request.name, self.random.randint(0, 3), kind))
        return program._replace(faults=tuple(faults))

    def _clocks(self) -> Program:
        return self._skewed(self._identity())

    def _skewed(self, program: Program) -> Program:
        """The same on hosts whose clocks are off."""
        requests = list(program.requests)
        for index, request in enumerate(requests):
            if self.chance(0.5):
                skew = self.random.choice((-3600.0, 3600.0, -20.0, 20.0))
                requests[index] = request._replace(skew=skew)
        return program._replace(requests=tuple(requests))


VALUES = frozenset(("get", "put", "add", "push", "inc", "derive", "del", "keys", "pop"))


def draw(seed: int, kind: str | None = None) -> Program:
    """The program of a seed."""
    return Drawer(seed).program(kind)
