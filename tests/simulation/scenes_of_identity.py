"""Directed programs about tokens, logins and ends."""

from __future__ import annotations

from . import edition
from .programs import Fault, Request
from .scenes import (
    COPY,
    DEVICE,
    FORGED,
    Directed,
    get,
    logged_in,
    logged_in_by_two_clicks,
    main_lives,
    nobody_has_a_new_session,
    only_the_caller,
    post,
    program,
    sent,
)

IDENTITY = (
    Directed(
        "A logout beside a rotation ends the session",
        program(post("A", ("rotate",)), post("B", ("flush",))),
        choices=(1, 0, 1, 0, 1, 1),
    ),
    Directed(
        "An administrator's end beside a rotation ends the session",
        program(post("A", ("rotate",)), Request("B", (("end",),), "ADMIN", "")),
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
    ),
    Directed(
        "Two clicks on a login, the first answer dropped: logged in, with the cart",
        program(
            post("A", ("login", "ann", "m1"), answer="dropped"),
            post("B", ("login", "ann", "m2")),
        ),
        logged_in_by_two_clicks,
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
    ),
    Directed(
        "A save between a login and a rotation",
        program(
            post(
                "A", ("add", "a", "m1"), ("save",), ("login", "ann", "m2"), ("rotate",)
            ),
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
