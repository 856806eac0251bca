"""Directed programs about reads, writes, locks and saves."""

from __future__ import annotations

from .programs import Fault, Request
from .scenes import Directed, counted, get, main_lives, post, program, ran_once

VALUES = (
    Directed(
        "save() that met a conflict does not return",
        program(
            get("A", ("add", "a", "m1"), ("save",)),
            post("B", ("add", "a", "m2")),
        ),
    ),
    Directed(
        "unlock() that met a conflict does not return",
        program(
            get("A", ("add", "a", "m1"), ("unlock",)),
            post("B", ("add", "a", "m2")),
        ),
    ),
    Directed(
        "The end of a lock in an ended session does not return",
        program(
            post("A", ("regenerate",)),
            get("B", ("with", (("add", "c", "m1"),))),
        ),
    ),
    Directed(
        "A nested lock saves nothing and gives nothing up",
        program(
            get(
                "A",
                (
                    "with",
                    (
                        ("add", "a", "m1"),
                        ("with", (("add", "b", "m2"),)),
                        ("add", "c", "m3"),
                    ),
                ),
            ),
            post("B", ("derive", "d", "a", "m4"), ("derive", "e", "b", "m5")),
            get("C", ("del", "c")),
        ),
        orders=150,
    ),
    Directed(
        "What was read before a nested lock stays read after it",
        program(
            get(
                "A",
                (
                    "with",
                    (
                        ("get", "a"),
                        ("with", (("put", "b", "m1"),)),
                        ("useold", "c", "a", "m2"),
                    ),
                ),
            ),
            post("B", ("derive", "a", "c", "m3")),
        ),
        orders=150,
    ),
    Directed(
        "An increment after a nested lock is under the outer one",
        program(
            get("A", ("with", (("with", (("put", "b", "m1"),)), ("inc",)))),
            post("B", ("inc",)),
        ),
        counted(2),
        orders=150,
    ),
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
            get(
                "A",
                ("get", "a"),
                ("save",),
                ("with", (("get", "a"),)),
                ("useold", "b", "a", "m1"),
            ),
            post("B", ("add", "a", "m2")),
        ),
        orders=150,
    ),
    Directed(
        "A second look under the lock does not clear what was written from the first",
        program(
            get("A", ("derive", "b", "a", "m1"), ("with", (("get", "a"),))),
            post("B", ("derive", "a", "b", "m2")),
        ),
        orders=150,
    ),
    Directed(
        "A second look under a lock taken late does not clear what was written before",
        program(
            post("A", ("derive", "b", "a", "m1"), ("lock",), ("get", "a")),
            post("B", ("derive", "a", "b", "m2")),
            locking="never",
        ),
        orders=150,
    ),
    Directed(
        "A second look under the lock: what was written before it stays in doubt",
        program(
            post(
                "A",
                ("get", "a"),
                ("put", "b", "m0"),
                ("lock",),
                ("get", "a"),
                ("useold", "b", "a", "m1"),
            ),
            post("B", ("add", "a", "m2")),
            locking="never",
        ),
        orders=150,
    ),
    Directed(
        "After a save what was read before it stays read",
        program(
            post(
                "A", ("get", "a"), ("save",), ("get", "b"), ("useold", "c", "a", "m1")
            ),
            post("B", ("derive", "a", "c", "m2")),
        ),
        orders=150,
    ),
    Directed(
        "A look after a save at another key does not clear the first",
        program(
            get(
                "A",
                ("get", "a"),
                ("inc",),
                ("save",),
                ("get", "a"),
                ("inc",),
                ("useold", "c", "a", "m1"),
            ),
            post("B", ("add", "a", "m2"), ("inc",)),
        ),
        orders=150,
    ),
    Directed(
        "A list that was put in, saved and appended to again is watched",
        program(
            get("A", ("putheld", "a", "m1"), ("save",), ("heldpush", "a", "m2")),
            post("B", ("add", "a", "m3")),
        ),
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
    ),
    Directed(
        "A link in a mail is not run twice",
        program(get("A", ("inc",), site="none"), post("B", ("inc",))),
        ran_once("A"),
    ),
    Directed(
        "An OAuth answer is not run twice, and loses nothing",
        program(
            get("A", ("inc",), query="code=1&state=2"),
            post("B", ("inc",)),
        ),
        lambda sim: ran_once("A")(sim) or counted(2)(sim),
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
