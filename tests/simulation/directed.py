"""Directed programs: what random ones hardly meet, and every fault that was met before.

Each runs in many orders, and all oracles watch it.  A check looks at what one rule says
of this very program.  Where ``first`` is set, the first edition is known to fail it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from . import edition
from .browsers import tokens_in
from .programs import Fault, Program, Request, Verb

if TYPE_CHECKING:
    from .simulator import Simulation

Check = Callable[["Simulation"], str | None]


class Directed(NamedTuple):
    """A program with the sentence that it shows."""

    sentence: str
    program: Program
    check: Check | None = None
    first: bool = False
    orders: int = 60
    choices: tuple[int, ...] = ()
    """An order in which the first edition is known to fail."""


def program(
    *requests: Request,
    user: str | None = None,
    browsers: tuple[tuple[str, str], ...] = (),
    faults: tuple[Fault, ...] = (),
    **options: object,
) -> Program:
    return Program(
        requests,
        tuple(options.items()),
        user,
        (("main", "own"), ("tab", "same"), *browsers),
        faults,
    )


def post(name: str, *verbs: Verb, **more: object) -> Request:
    return Request(name, verbs, "POST", **more)  # type: ignore[arg-type]


def get(name: str, *verbs: Verb, **more: object) -> Request:
    return Request(name, verbs, "GET", **more)  # type: ignore[arg-type]


COPY = (("copy", "copy"),)
FORGED = (("forged", "forged"),)
DEVICE = (("device", "own"),)


# -- checks --------------------------------------------------------------------------------


def main_lives(sim: Simulation) -> str | None:
    """The session is there."""
    if any(each.get("birth") == "birth-main" for each in sim.stored()):
        return None
    return "the session is gone"


def logged_in(sim: Simulation) -> str | None:
    """The main browser is logged in, with its cart."""
    token = sim.browsers["main"].token
    session = sim.manager.open(token or "")
    if session.user != "ann":
        return f"the browser is {session.user}"
    return None if session.get("a", [])[:1] == ["a0"] else "the cart is gone"


def ran_once(name: str) -> Check:
    def check(sim: Simulation) -> str | None:
        runs = len(sim.by_name[name].runs)
        return None if runs == 1 else f"{name} ran {runs} times"

    return check


def sent(name: str, expected: bool) -> Check:
    """Whether the answer to a request set a token."""

    def check(sim: Simulation) -> str | None:
        tokens = tokens_in(sim.by_name[name].cookies)
        if bool(tokens) is expected:
            return None
        return f"{name} was {'sent a' if tokens else 'not sent its'} token"

    return check


def counted(number: int) -> Check:
    def check(sim: Simulation) -> str | None:
        found = [s.get("n") for s in sim.stored() if s.get("birth") == "birth-main"]
        return None if found == [number] else f"n is {found}, not {number}"

    return check


def nobody_has_a_new_session(sim: Simulation) -> str | None:
    more = [s.id for s in sim.stored() if s.id not in sim.ids.values()]
    return f"{len(more)} sessions more" if more and not edition.IS_FIRST else None


def only_the_caller(sim: Simulation) -> str | None:
    """Of ann's sessions the one that asked for the end of the others is left."""
    births = [s.get("birth") for s in sim.stored()]
    return None if births == ["birth-main"] else f"left are {births}"


# -- the list ------------------------------------------------------------------------------

IDENTITY = (
    Directed(
        "A logout beside a rotation ends the session",
        program(post("A", ("rotate",)), post("B", ("flush",))),
        first=True,
        choices=(1, 0, 1, 0, 1, 1),
    ),
    Directed(
        "An administrator's end beside a rotation ends the session",
        program(post("A", ("rotate",)), Request("B", (("end",),), "ADMIN", "")),
        first=True,
    ),
    Directed(
        "A user's end beside a rotation ends the session",
        program(
            post("A", ("rotate",)),
            Request("B", (("end_user", "ann"),), "ADMIN", ""),
            user="ann",
        ),
    ),
    Directed(
        "end_user(keep=session.id) keeps the caller, who has just rotated",
        program(post("A", ("rotate",), ("end_others",)), user="ann"),
        main_lives,
        first=True,
    ),
    Directed(
        "end_user(keep=session.id) ends all other sessions of the user",
        program(post("A", ("end_others",)), user="ann", browsers=DEVICE),
        only_the_caller,
    ),
    Directed(
        "A lost answer to a rotation logs nobody out",
        program(
            post("A", ("rotate",), answer="dropped"),
            post("B", ("get", "a"), after="A", delay=400.0),
        ),
        main_lives,
        first=True,
    ),
    Directed(
        "Ten lost answers to rotations in a row log nobody out",
        program(
            *(
                post(f"R{i}", ("rotate",), delay=301.0, answer="dropped")._replace(
                    after=f"R{i - 1}" if i else ""
                )
                for i in range(10)
            ),
            post("Z", ("add", "a", "m1"), after="R9", delay=301.0),
        ),
        main_lives,
        first=True,
        orders=5,
    ),
    Directed(
        "An answer to a rotation that arrives after the next rotation logs nobody out",
        program(
            post("A", ("rotate",)),
            post("B", ("rotate",), delay=301.0),
            post("C", ("add", "a", "m1"), delay=301.0),
        ),
    ),
    Directed(
        "A copy of a token in its grace does not rotate",
        program(
            post("A", ("rotate",)),
            post("B", ("get", "a"), after="A"),
            post("C", ("rotate",), browser="copy", after="B"),
            browsers=COPY,
        ),
        sent("C", False),
    ),
    *(
        Directed(
            f"A rotation whose call {call} fails ({kind}) leaves one session",
            program(post("A", ("rotate",)), faults=(Fault("A", call, kind),)),
            first=True,
            orders=2,
        )
        for call in range(4)
        for kind in ("fail", "lose", "die", "die after")
    ),
    Directed(
        "The rotation that is due makes no reader wait",
        program(
            get("A", ("get", "a"), delay=61.0),
            post("B", ("add", "a", "m1"), ("sleep", 0.5), ("add", "b", "m2")),
            rotate_every=60,
            rotate_grace=60,
        ),
        first=True,
    ),
    Directed(
        "A rotation that is due does not write what was dropped",
        program(
            post("A", ("put", "a", "m1"), ("discard",), delay=61.0),
            rotate_every=60,
            rotate_grace=60,
        ),
    ),
    Directed(
        "A rotation that is due does not write what was never to be saved",
        program(
            post("A", ("put", "a", "m1"), delay=61.0),
            rotate_every=60,
            rotate_grace=60,
            auto=False,
        ),
        first=True,
    ),
    Directed(
        "Two clicks on a login, the first answer dropped: logged in, with the cart",
        program(
            post("A", ("login", "ann", "m1"), answer="dropped"),
            post("B", ("login", "ann", "m2")),
        ),
        logged_in,
    ),
    Directed(
        "Two clicks on a login in a session of another user",
        program(
            post("A", ("login", "ann", "m1")),
            post("B", ("login", "ann", "m2")),
            post("C", ("add", "a", "m3"), after="A"),
            user="bob",
        ),
    ),
    Directed(
        "A second click on a login whose view also writes loses no value",
        program(
            post("A", ("login", "ann", "m1")),
            post("B", ("add", "a", "m2"), ("login", "ann", "m3")),
        ),
    ),
    Directed(
        "A poll that is answered after a login leaves the login alone",
        program(post("A", ("login", "ann", "m1")), get("B", ("get", "a"))),
        logged_in,
    ),
    Directed(
        "A write that is answered after a login leaves the login alone",
        program(post("A", ("login", "ann", "m1")), post("B", ("add", "b", "m2"))),
        logged_in,
    ),
    Directed(
        "A token that was planted before a login is not logged in",
        program(
            post("A", ("login", "ann", "m1")),
            get("B", ("get", "a"), browser="copy"),
            post("C", ("rotate",), browser="copy"),
            browsers=COPY,
        ),
    ),
    Directed(
        "A token that was planted before a login cannot end the session later",
        program(
            post("A", ("login", "ann", "m1")),
            get("B", ("get", "a"), after="A"),
            post("C", ("flush",), browser="copy", after="B", delay=70.0),
            browsers=COPY,
        ),
        main_lives,
        orders=10,
    ),
    Directed(
        "Flask's tutorial: clear() and a user's id leave the planted token outside",
        program(
            post("A", ("clear",), ("put", "user_id", "m1")),
            get("B", ("get", "a"), browser="copy"),
            browsers=COPY,
        ),
        None if edition.IS_FIRST else sent("A", True),
        first=True,
    ),
    Directed(
        "A save between a login and a rotation",
        program(
            post("A", ("add", "a", "m1"), ("save",), ("login", "ann", "m2"), ("rotate",)),
            post("B", ("add", "b", "m3")),
        ),
        logged_in,
    ),
    Directed(
        "A login, a save, and a rotation after it: no older token is good",
        program(
            post("A", ("login", "ann", "m1"), ("save",), ("rotate",)),
            get("B", ("get", "a"), browser="copy"),
            browsers=COPY,
        ),
        logged_in,
    ),
    Directed(
        "Two turns, then a logout with the oldest token, within the window",
        program(
            post("A", ("rotate",)),
            post("B", ("rotate",), after="A"),
            post("C", ("flush",), browser="copy", after="B"),
            browsers=COPY,
        ),
    ),
    Directed(
        "A forged secret within the window reads nothing and ends nothing",
        program(
            post("A", ("rotate",)),
            get("B", ("get", "a"), browser="forged", after="A"),
            browsers=FORGED,
        ),
        nobody_has_a_new_session,
    ),
    Directed(
        "A logout with a forged secret within the window ends nothing",
        program(
            post("A", ("login", "ann", "m1")),
            post("B", ("flush",), browser="forged", after="A"),
            browsers=FORGED,
        ),
        main_lives,
    ),
    Directed(
        "A lock that only reads stores nothing for a forged token",
        program(get("A", ("with", (("get", "a"),)), browser="forged"), browsers=FORGED),
        nobody_has_a_new_session,
        first=True,
        orders=3,
    ),
    Directed(
        "A login in a session that was just ended is not dropped",
        program(
            post("A", ("flush",)),
            post("B", ("login", "ann", "m1")),
        ),
    ),
    Directed(
        "An end in a request that fails stands",
        program(post("A", ("flush",), ("fail",)), post("B", ("add", "a", "m1"))),
    ),
    Directed(
        "An end in a request whose lock is held by another waits for nobody",
        program(
            post("A", ("add", "a", "m1"), ("sleep", 1), ("add", "b", "m2")),
            post("B", ("flush",)),
        ),
    ),
    Directed(
        "clear() and a write, where another request holds the lock",
        program(
            post("A", ("add", "a", "m1"), ("sleep", 1), ("add", "b", "m2")),
            get("B", ("clear",), ("put", "c", "m3")),
        ),
    ),
    Directed(
        "A new token that is saved leaves with an answer of 500",
        program(
            post("A", ("login", "ann", "m1"), ("save",), ("answer", "500 Oops")),
        ),
        sent("A", True),
        orders=3,
    ),
    Directed(
        "A post from another site starts no session",
        program(
            post("A", ("put", "a", "m1"), browser="fresh", site="cross-site"),
            browsers=(("fresh", "none"),),
        ),
        sent("A", False),
        first=True,
        orders=3,
    ),
    Directed(
        "A login by a post from another site is kept",
        program(
            post("A", ("login", "ann", "m1"), browser="fresh", site="cross-site"),
            browsers=(("fresh", "none"),),
        ),
        sent("A", True),
        orders=3,
    ),
    Directed(
        "A regeneration in another tab drops what began before it, and says so",
        program(
            post("A", ("regenerate",)),
            get("B", ("get", "a"), ("add", "b", "m1")),
            get("C", ("with", (("add", "c", "m2"),)), browser="tab"),
        ),
    ),
)

CONCURRENCY = (
    Directed(
        "save() that met a conflict does not return",
        program(
            get("A", ("add", "a", "m1"), ("save",)),
            post("B", ("add", "a", "m2")),
        ),
        first=True,
    ),
    Directed(
        "unlock() that met a conflict does not return",
        program(
            get("A", ("add", "a", "m1"), ("unlock",)),
            post("B", ("add", "a", "m2")),
        ),
        first=True,
    ),
    Directed(
        "The end of a lock in an ended session does not return",
        program(
            post("A", ("regenerate",)),
            get("B", ("with", (("add", "c", "m1"),))),
        ),
        first=True,
    ),
    Directed(
        "A nested lock saves nothing and gives nothing up",
        program(
            get(
                "A",
                ("with", (("add", "a", "m1"), ("with", (("add", "b", "m2"),)),
                          ("add", "c", "m3"))),
            ),
            post("B", ("derive", "d", "a", "m4"), ("derive", "e", "b", "m5")),
            get("C", ("del", "c")),
        ),
        first=True,
        orders=150,
    ),  # fmt: skip
    Directed(
        "After a lock a GET is decided and reported, never silent",
        program(
            get("A", ("with", (("add", "a", "m1"),)), ("get", "b"), ("add", "c", "m2")),
            post("B", ("add", "b", "m3"), ("add", "c", "m4")),
        ),
    ),
    Directed(
        "A conflict that a lock brings to light before anything is saved is run again",
        program(
            get("A", ("get", "a"), ("with", (("derive", "c", "a", "m1"),))),
            post("B", ("add", "a", "m2")),
        ),
    ),
    Directed(
        "A second look under the lock does not clear what was computed from the first",
        program(
            get("A", ("get", "a"), ("save",), ("with", (("get", "a"),)),
                ("useold", "b", "a", "m1")),
            post("B", ("add", "a", "m2")),
        ),
        orders=150,
    ),  # fmt: skip
    Directed(
        "A second look under the lock: what was written before it stays in doubt",
        program(
            post("A", ("get", "a"), ("put", "b", "m0"), ("lock",), ("get", "a"),
                 ("useold", "b", "a", "m1")),
            post("B", ("add", "a", "m2")),
            locking="never",
        ),
        orders=150,
    ),  # fmt: skip
    Directed(
        "After a save what was read before it stays read",
        program(
            post("A", ("get", "a"), ("save",), ("get", "b"), ("useold", "b", "a", "m1")),
            post("B", ("add", "a", "m2")),
        ),
        first=True,
        orders=150,
    ),
    Directed(
        "A look after a save at another key does not clear the first",
        program(
            get("A", ("get", "a"), ("inc",), ("save",), ("get", "a"), ("inc",),
                ("useold", "c", "a", "m1")),
            post("B", ("add", "a", "m2"), ("inc",)),
        ),
        orders=150,
    ),  # fmt: skip
    Directed(
        "A list that was put in, saved and appended to again is watched",
        program(
            get("A", ("putheld", "a", "m1"), ("save",), ("heldpush", "a", "m2")),
            post("B", ("add", "a", "m3")),
        ),
        first=True,
        orders=150,
    ),
    Directed(
        "A list that was handed out is watched through a save and a reload",
        program(
            get("A", ("hold", "a"), ("inc",), ("save",), ("heldpush", "a", "m1")),
            post("B", ("add", "a", "m2")),
        ),
        orders=150,
    ),
    Directed(
        "A key that another request writes while a session is emptied is kept",
        program(post("A", ("drain",)), post("B", ("put", "b", "m1"))),
    ),
    Directed(
        "A save tried again after a lost answer does not count twice",
        program(
            post("A", ("inc",)), post("B", ("inc",)), faults=(Fault("A", 1, "lose"),)
        ),
    ),
    Directed(
        "Three increments by GET count three",
        program(get("A", ("inc",)), get("B", ("inc",)), get("C", ("inc",))),
        counted(3),
    ),
    Directed(
        "Three increments by POST count three",
        program(post("A", ("inc",)), post("B", ("inc",)), post("C", ("inc",))),
        counted(3),
    ),
    Directed(
        "An administrator's edit and two increments count three",
        program(
            Request("A", (("edit", (("inc",),)),), "ADMIN", ""),
            post("B", ("inc",)),
            get("C", ("inc",)),
        ),
        counted(3),
    ),
    Directed(
        "A payment return is not run twice",
        program(get("A", ("inc",), site="cross-site"), post("B", ("inc",))),
        ran_once("A"),
        first=True,
    ),
    Directed(
        "A link in a mail is not run twice",
        program(get("A", ("inc",), site="none"), post("B", ("inc",))),
        ran_once("A"),
        first=True,
    ),
    Directed(
        "An OAuth answer is not run twice, and loses nothing",
        program(
            get("A", ("inc",), query="code=1&state=2"),
            post("B", ("inc",)),
        ),
        lambda sim: ran_once("A")(sim) or counted(2)(sim),
        first=True,
    ),
    Directed(
        "An expiry beside a touch stands",
        program(
            get("A", ("get", "a"), delay=61.0),
            post("B", ("expiry", 3600)),
        ),
    ),
    Directed(
        "A failed request that is to be saved is not run again",
        program(
            get("A", ("add", "a", "m1"), ("fail",)),
            post("B", ("add", "a", "m2")),
            save_on_error=True,
        ),
        ran_once("A"),
    ),
    Directed(
        "A holder that overran its lease loses nothing in silence",
        program(
            post("A", ("add", "a", "m1"), ("sleep", 31), ("add", "b", "m2")),
            post("B", ("add", "a", "m3")),
        ),
        first=False,
    ),
    Directed(
        "After the death of a lock's holder the session is usable within the lease",
        program(
            post("A", ("add", "a", "m1")),
            post("B", ("add", "a", "m2"), delay=31.0),
            faults=(Fault("A", 1, "die"),),
        ),
    ),
    *(
        Directed(
            f"A host whose clock is {skew:+} s off loses and ends nothing",
            program(
                post("A", ("add", "a", "m1"), skew=skew),
                post("B", ("add", "a", "m2")),
                get("C", ("add", "b", "m3"), skew=skew),
            ),
            main_lives,
        )
        for skew in (-3600.0, 3600.0)
    ),
    Directed(
        "Writes while streaming lose nothing",
        program(
            get("A", ("add", "a", "m1"), ("stream",), ("add", "b", "m2")),
            post("B", ("add", "a", "m3")),
            post("C", ("add", "b", "m4")),
        ),
    ),
    Directed(
        "A store that goes back to an earlier state still lets a user log in",
        program(
            post("A", ("login", "ann", "m1")),
            post("B", ("add", "a", "m2"), after="A"),
            faults=(Fault("B", 0, "rollback"),),
        ),
    ),
)

ALL = (*IDENTITY, *CONCURRENCY)
