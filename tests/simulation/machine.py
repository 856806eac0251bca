"""The application: it runs the verbs of a request on a real session, and keeps a trace.

Every run of a view has a trace of its own; a second run begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import edition
from .programs import Verb
from .world import Actor, World


class Boom(Exception):
    """What a view raises that fails."""


class Step:
    """A verb that was run."""

    __slots__ = ("begin", "depth", "end", "error", "result", "verb")

    def __init__(self, verb: Verb, begin: int, depth: int) -> None:
        self.verb = verb
        self.begin = begin
        self.end = begin
        self.depth = depth
        self.error: BaseException | None = None
        self.result: Any = None

    @property
    def is_boundary(self) -> bool:
        """Whether this verb claims to have saved, or to have had nothing to save."""
        name = self.verb[0]
        return self.error is None and (
            name in ("save", "unlock", "stream") or (name == "exit" and self.depth == 0)
        )


class Run:
    """One run of a view."""

    def __init__(self, world: World, actor: Actor, manager: Any, problem: Any) -> None:
        self.world = world
        self.actor = actor
        self.manager = manager
        self.problem: Callable[[str, str], None] = problem
        self.trace: list[Step] = []
        self.locals: dict[str, Any] = {}
        self.held: dict[str, Any] = {}
        self.attached: set[str] = set()
        self.pending: dict[str, tuple[str, int]] = {}
        self.depth = 0
        self.was_new: bool | None = None
        self.saw_birth: str | None = None
        self.id: str | None = None
        self.saves_at = len(actor.saved)
        self.finished = False
        self.status = "200 OK"

    def run(self, session: Any, verbs: tuple[Verb, ...]) -> None:
        """Run verbs; the scheduler may switch before each."""
        for verb in verbs:
            name = verb[0]
            if name == "with":
                self._block(session, verb[1])
            elif name == "try":
                try:
                    self.run(session, verb[1])
                except Exception as error:
                    self.world.tell(f"swallowed {type(error).__name__}")
            else:
                self._step(
                    verb, lambda v=verb: getattr(self, f"do_{v[0]}")(session, *v[1:])
                )

    def _block(self, session: Any, verbs: tuple[Verb, ...]) -> None:
        guards: list[Any] = []

        def enter() -> None:
            guard = session.lock()
            guard.__enter__()
            guards.append(guard)

        self._step(("enter",), enter)
        self.depth += 1
        try:
            self.run(session, verbs)
        except BaseException as error:
            self.depth -= 1
            guards[0].__exit__(type(error), error, None)
            raise
        self.depth -= 1
        self._step(("exit",), lambda: guards[0].__exit__(None, None, None))

    def _step(self, verb: Verb, do: Callable[[], Any]) -> Any:
        world = self.world
        world.point(f"verb {verb[0]}" + (f" {verb[1]}" if verb[0] == "pause" else ""))
        if world.log is not None:
            world.tell(f"verb {verb[0]}({', '.join(map(str, verb[1:]))})")
        step = Step(verb, world.step, self.depth)
        self.trace.append(step)
        try:
            step.result = do()
        except BaseException as error:
            step.error = error
            world.tell(f"raises {type(error).__name__}: {str(error)[:120]}")
            if isinstance(error, edition.SessionConflict):
                self.actor.reports.append(("raised", str(error)))
            raise
        finally:
            step.end = world.step
        if world.log is not None and step.result is not None:
            world.tell(f"-> {step.result!r}")
        if step.is_boundary:
            self._acknowledged(verb[0])
        return step.result

    def _wrote(self, key: str, marker: str) -> None:
        self.pending[key] = marker, len(self.actor.saved)

    def _acknowledged(self, verb: str) -> None:
        """What was claimed to be saved must have been saved: oracle 6."""
        pending, self.pending = self.pending, {}
        if verb == "unlock" and self.no_auto:
            return
        request = getattr(self.actor, "request", None)
        if request is not None and request.site == "cross-site" and not request.is_safe:
            return  # what a post from another site begins is not kept, by section 3
        for key, (marker, since) in pending.items():
            saved = self.actor.saved[since:]
            if not any(f'"{marker}"'.encode() in data for _, _, data in saved):
                self.problem(
                    "6 a save that lies",
                    f"{verb}() of {self.actor.name} returned, and the store was never "
                    f"given {marker} in {key!r}",
                )

    no_auto = False

    # -- looking -----------------------------------------------------------------------

    def do_get(self, s: Any, key: str) -> Any:
        value = s.get(key)
        self.locals[key] = list(value) if isinstance(value, list) else value
        return self.locals[key]

    def do_who(self, s: Any) -> Any:
        self.saw_birth = s.get("birth")
        return self.saw_birth

    def do_len(self, s: Any) -> Any:
        return len(s)

    def do_look(self, s: Any) -> Any:
        return s.new

    def do_hold(self, s: Any, key: str) -> None:
        value = s.get(key)
        if isinstance(value, list):
            self.held[key] = value
            self.attached.add(key)

    # -- writing -----------------------------------------------------------------------

    def _put(self, s: Any, key: str, value: Any, marker: str) -> None:
        s[key] = value
        self.attached.discard(key)
        self._wrote(key, marker)

    def do_put(self, s: Any, key: str, marker: str) -> None:
        self._put(s, key, [marker], marker)

    def do_add(self, s: Any, key: str, marker: str) -> None:
        self._put(s, key, [*as_list(s.get(key)), marker], marker)

    def do_derive(self, s: Any, key: str, source: str, marker: str) -> None:
        self._put(s, key, [*as_list(s.get(source)), marker], marker)

    def do_useold(self, s: Any, key: str, source: str, marker: str) -> None:
        self._put(s, key, [*as_list(self.locals.get(source)), marker], marker)

    def do_keys(self, s: Any, key: str, marker: str) -> None:
        self._put(s, key, [*sorted(s), marker], marker)

    def do_push(self, s: Any, key: str, marker: str) -> None:
        s.setdefault(key, []).append(marker)
        self._wrote(key, marker)

    def do_putheld(self, s: Any, key: str, marker: str) -> None:
        value = [marker]
        self._put(s, key, value, marker)
        self.held[key] = value
        self.attached.add(key)

    def do_heldpush(self, s: Any, key: str, marker: str) -> None:
        if key in self.held:
            self.held[key].append(marker)
            if key in self.attached:
                self._wrote(key, marker)

    def do_update(self, s: Any, key: str, other: str, marker: str) -> None:
        s.update({key: [marker], other: [marker]})
        self.attached -= {key, other}
        self._wrote(other, marker)
        self._wrote(key, marker)

    def do_inc(self, s: Any) -> Any:
        s["n"] = (s.get("n") or 0) + 1
        return s["n"]

    def do_del(self, s: Any, key: str) -> None:
        s.pop(key, None)
        self.pending.pop(key, None)
        self.attached.discard(key)

    def do_drain(self, s: Any) -> None:
        for key in list(s):
            del s[key]
        self.let_go()

    def do_pop(self, s: Any, key: str, marker: str) -> None:
        value = s.pop(key, None)
        self.pending.pop(key, None)
        self.attached.discard(key)
        other = "c" if key != "c" else "a"
        self._put(s, other, [*as_list(value), marker], marker)

    def let_go(self) -> None:
        self.pending.clear()
        self.attached.clear()

    def do_revert(self, s: Any) -> None:
        s.revert()
        self.let_go()

    def do_discard(self, s: Any) -> None:
        s.modified = False
        self.let_go()

    def do_force(self, s: Any) -> None:
        s.modified = True

    def do_expiry(self, s: Any, seconds: int | None) -> None:
        s.set_expiry(seconds)

    # -- what the sessions of a user share ----------------------------------------------

    def do_upush(self, s: Any, marker: str) -> Any:
        if s.user is None:
            return None
        s.user_data.setdefault("list", []).append(marker)
        return "done"

    def do_uinc(self, s: Any) -> Any:
        if s.user is None:
            return None
        s.user_data["n"] = s.user_data.get("n", 0) + 1
        return "done"

    def do_uget(self, s: Any) -> Any:
        return None if s.user is None else s.user_data.get("n")

    def do_usave(self, s: Any) -> None:
        if s.user is not None:
            s.user_data.save()

    def do_ulock(self, s: Any) -> None:
        if s.user is not None:
            s.user_data.lock()

    # -- locks and saves ---------------------------------------------------------------

    def do_save(self, s: Any) -> None:
        s.save()

    def do_lock(self, s: Any) -> None:
        s.lock()

    def do_trylock(self, s: Any) -> None:
        s.lock(wait=0)

    def do_unlock(self, s: Any) -> None:
        s.unlock()

    def do_no_replay(self, s: Any) -> None:
        edition.no_replay(s)

    # -- identity ----------------------------------------------------------------------

    def do_rotate(self, s: Any) -> None:
        s.rotate()

    def do_regenerate(self, s: Any) -> None:
        s.regenerate()

    def do_login(self, s: Any, user: str, marker: str) -> None:
        s.login(user, device=marker)
        self.let_go()

    def do_flush(self, s: Any) -> None:
        s.flush()
        self.let_go()

    def do_clear(self, s: Any) -> None:
        s.clear()
        self.let_go()

    def do_end_others(self, s: Any) -> Any:
        user, id = s.user, s.id
        if user is None:
            return None
        return self.manager.end_user(user, keep=id)

    # -- the world ---------------------------------------------------------------------

    def do_sleep(self, s: Any, seconds: float) -> None:
        self.world.pass_by(seconds)

    def do_pause(self, s: Any, name: str) -> None:
        """A place for a script to stop at."""

    def do_answer(self, s: Any, status: str) -> None:
        self.status = status

    def do_fail(self, s: Any) -> None:
        raise Boom

    # -- an administrator's ------------------------------------------------------------

    def do_edit(self, find: Callable[[], str | None], verbs: tuple[Verb, ...]) -> None:
        id = find()
        if id is None:
            return
        with self.manager.edit(id) as session:
            self.depth += 1
            self.run(session, verbs)
            self.depth -= 1

    def do_end(self, find: Callable[[], str | None]) -> Any:
        id = find()
        return None if id is None else self.manager.end(id)

    def do_end_user(self, find: Callable[[], str | None], user: str) -> Any:
        return self.manager.end_user(user)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
