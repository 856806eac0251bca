"""Runs a program once, by a seed, and asks the oracles what they think of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import edition, oracles
from . import world as worlds
from .browsers import Browser, tokens_in
from .faults import Faults
from .machine import Boom, Run, Step
from .programs import Fault, Program, Request
from .world import Actor, Died, SimulatedStore, World, now, running

SETUP = {"n": 0, "a": ["a0"], "b": ["b0"]}


class Violation(NamedTuple):
    """What a run showed that none may show."""

    oracle: str
    text: str


class Task(Actor):
    """An actor that carries out a request of a program."""

    def __init__(self, request: Request, work: Callable[[], None]) -> None:
        super().__init__(request.name, request.skew, work)
        self.request = request
        self.runs: list[Run] = []
        self.status = ""
        self.error: BaseException | None = None
        self.cookies: list[str] = []
        self.presented: str | None = None
        self.delivered: int | None = None
        self.sent: int | None = None
        self.lineage: str | None = None
        self.marks: list[int] = []
        """How many calls of the store there were when a run began."""

    @property
    def run(self) -> Run | None:
        """The run whose answer counts."""
        return self.runs[-1] if self.runs else None

    @property
    def answered(self) -> bool:
        return self.status.startswith("200")

    @property
    def final_calls(self) -> list[str]:
        """What the last run called."""
        return self.calls[self.marks[-1] if self.marks else 0 :]


class Stage:
    """A store, and middlewares for it by their options; kept from run to run."""

    def __init__(self, make: Callable[[], Any], *, fresh: bool = True) -> None:
        self.make, self.fresh = make, fresh
        self.store = SimulatedStore(make())
        self.made: dict[Any, tuple[Any, Any]] = {}
        self.base: float | None = None
        self.simulation: Simulation | None = None

    def new_store(self) -> None:
        if self.fresh:
            self.store.inner = self.make()

    def sides(self, options: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
        """Manager and middleware."""
        if options not in self.made:
            settings = dict(options)
            if settings.get("on_conflict") == "callable":
                settings["on_conflict"] = self._decide
            settings |= edition.telling(self._ended)
            manager = edition.SessionManager(
                self.store, edition.options(settings), clock=now
            )
            middleware = edition.SessionMiddleware(self._app, manager=manager)
            self.made[options] = manager, middleware
        return self.made[options]

    def _app(self, environ: dict[str, Any], start_response: Any) -> Any:
        assert self.simulation is not None
        return self.simulation.application(environ, start_response)

    @staticmethod
    def _report(kind: str, text: str) -> None:
        world = worlds.current()
        if world is not None and world.current is not None:
            world.current.reports.append((kind, text))

    def _ended(self, what: Any) -> None:
        self._report("ended", str(what))

    def _decide(self, conflict: Any) -> Any:
        self._report("overwritten", f"on_conflict: {sorted(conflict.keys)}")
        return conflict.ours


class Simulation:
    """One run of a program."""

    def __init__(
        self,
        stage: Stage,
        program: Program,
        seed: int,
        *,
        choices: list[int] | None = None,
        script: list[tuple[str, str]] | None = None,
        logs: bool = False,
    ) -> None:
        self.stage, self.program = stage, program
        base = {} if stage.base is None else {"base": stage.base}
        self.world = World(seed, choices=choices, script=script, **base)
        if logs:
            self.world.log = []
        self.manager, self.middleware = stage.sides(program.options)
        self.violations: list[Violation] = []
        self.browsers: dict[str, Browser] = {}
        self.tasks: list[Task] = []
        self.by_name: dict[str, Task] = {}
        self.ids: dict[str, str] = {}
        """The id with which each lineage began."""
        self.first_tokens: dict[str, str] = {}

    def problem(self, oracle: str, text: str) -> None:
        found = Violation(oracle, text)
        if found not in self.violations:
            self.violations.append(found)

    def go(self, check: Any = None) -> list[Violation]:
        """Run, and return what was violated.

        Only a store in memory can go back to an earlier state.
        """
        if self._goes_back() and not self.stage.fresh:
            return []
        self.stage.new_store()
        self.stage.simulation = self
        store = self.stage.store
        store.faults = None
        with running(self.world):
            try:
                self._set_up()
                store.faults = (
                    Faults(self.program.faults) if self.program.faults else None
                )
                if self._goes_back():
                    store.remember()
                try:
                    self.world.run()
                except worlds.Endless as error:
                    self.problem("0 endless", str(error))
                    return self.violations
                store.faults = None
                if check is not None and (wrong := check(self)) is not None:
                    self.problem("D directed", wrong)
                for oracle in oracles.ALL:
                    oracle(self)
            finally:
                self.world.current = None
                store.faults = None
                if not self.stage.fresh:
                    self._tidy()
        return self.violations

    def _goes_back(self) -> bool:
        return any(fault.kind == "rollback" for fault in self.program.faults)

    def _tidy(self) -> None:
        for session in list(self.manager.sessions()):
            self.manager.end(session.id)
        if not edition.IS_FIRST:
            self.manager.forget_user("ann")

    # -- the beginning -----------------------------------------------------------------

    def _set_up(self) -> None:
        main = None
        for name, kind in self.program.browsers:
            if kind == "same":
                assert main is not None
                self.browsers[name] = main
                continue
            browser = self.browsers[name] = Browser(name)
            if kind == "own":
                main = main or browser
                self._begin_session(browser, name)
            elif kind == "copy":
                assert main is not None
                browser.jar.update(main.jar)
                browser.lineage = main.lineage
            elif kind == "forged":
                assert main is not None
                assert main.token is not None
                browser.jar[edition.COOKIE] = edition.forged(main.token)
        for request in self.program.requests:
            self._add(request)

    def _begin_session(self, browser: Browser, name: str) -> None:
        request = Request("setup", (), "POST")
        self._setup_values = {"birth": f"birth-{name}", **SETUP}
        environ = browser.environ(request)
        cookies: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            cookies.extend(v for k, v in headers if k == "Set-Cookie")
            return lambda data: None

        body = self.middleware(environ, start_response)
        list(body)
        getattr(body, "close", lambda: None)()
        browser.keep(cookies)
        browser.lineage = name
        assert browser.token is not None
        self.first_tokens[name] = browser.token
        self.ids[name] = self.manager.open(browser.token).id

    def _add(self, request: Request) -> None:
        task = Task(request, lambda: self._carry_out(task))
        task.is_ready = lambda: self._may_begin(request)
        self.tasks.append(task)
        self.by_name[request.name] = task
        self.world.actors.append(task)
        if request.answer == "kept" and request.method != "ADMIN":
            answer = Actor(f"{request.name}'s answer", 0.0, lambda: self._deliver(task))
            answer.is_ready = lambda: task.ended is not None and task.status != "died"
            self.world.actors.append(answer)

    def _may_begin(self, request: Request) -> bool:
        before = self.by_name.get(request.after)
        if before is None or before.request is request:
            return True
        if before.request.answer == "kept" and before.request.method != "ADMIN":
            return before.delivered is not None or before.status == "died"
        return before.ended is not None

    def _deliver(self, task: Task) -> None:
        self.browsers[task.request.browser].keep(task.cookies)
        task.delivered = self.world.step
        self.world.tell(f"arrives, cookies: {len(task.cookies)}")

    # -- a request ---------------------------------------------------------------------

    def _carry_out(self, task: Task) -> None:
        request = task.request
        if request.delay:
            self.world.pass_by(request.delay)
        task.sent = self.world.step
        try:
            if request.method == "ADMIN":
                self._administer(task)
            else:
                self._send(task)
        except Died:
            task.status = "died"
        except BaseException as error:  # also what is no error, and must not get here
            task.status, task.error = task.status or "500", error
            if isinstance(error, edition.SessionConflict):
                task.reports.append(("raised", str(error)))
            self.world.tell(f"fails with {type(error).__name__}: {str(error)[:150]}")
        self.world.tell(f"answers {task.status}, cookies: {len(task.cookies)}")

    def _administer(self, task: Task) -> None:
        run = Run(self.world, task, self.manager, self.problem)
        task.runs.append(run)
        run.run(self.find_main, task.request.verbs)
        task.status = "200"

    def find_main(self) -> str | None:
        """The id of the main session now, asked outside of the run."""
        actor, self.world.current = self.world.current, None
        try:
            for session in self.manager.sessions():
                if session.get("birth") == "birth-main":
                    id: str = session.id
                    return id
            return None
        finally:
            self.world.current = actor

    def _send(self, task: Task) -> None:
        browser = self.browsers[task.request.browser]
        task.presented = browser.token
        environ = browser.environ(task.request)
        environ["simulation.task"] = task

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            task.status = status
            task.cookies = [v for k, v in headers if k == "Set-Cookie"]
            return lambda data: None

        body = self.middleware(environ, start_response)
        try:
            for _ in body:
                pass
        finally:
            getattr(body, "close", lambda: None)()

    def application(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The application behind the middleware: it runs the verbs."""
        session = environ["wsgisession.session"]
        task = environ.get("simulation.task")
        headers = [("Content-Type", "text/plain")]
        if task is None:
            self._prepare(session)
            start_response("200 OK", headers)
            return [b""]
        task.marks.append(len(task.calls))
        task.loaded.clear()
        task.reports = [each for each in task.reports if each[0] == "raised"]
        run = Run(self.world, task, self.manager, self.problem)
        run.no_auto = self.program.settings.get("auto") is False
        task.runs.append(run)
        if len(task.runs) > 1:
            self.world.tell(f"--- run {len(task.runs)}")
        verbs = task.request.verbs
        cut = next((i for i, v in enumerate(verbs) if v[0] == "stream"), None)
        run.run(session, verbs[:cut])
        self._note(run, session)
        start_response(run.status, headers)
        if cut is None:
            return [b"done"]
        return self._stream(run, session, verbs[cut + 1 :])

    def _stream(self, run: Run, session: Any, verbs: Any) -> Any:
        if run.no_auto:
            run.let_go()  # at the end of the answer's headers it is dropped
        step = Step(("stream",), self.world.step, 0)
        run.trace.append(step)
        yield b"first"
        step.end = self.world.step  # by now the headers have left, and it was saved
        run.run(session, verbs)
        yield b"last"

    def _note(self, run: Run, session: Any) -> None:
        run.finished = True
        if session.accessed and not run.actor.dead:
            run.was_new = session.new
            run.id = None if session.new else session.id

    def _prepare(self, session: Any) -> None:
        values = getattr(self, "_setup_values", None)
        if values is not None:
            session.update(values)
            if self.program.user is not None:
                session.login(self.program.user, device="m0")
            if self.program.settings.get("auto") is False:
                session.save()
            self._setup_values = None
        else:
            self.probe(session)

    # -- for oracles -------------------------------------------------------------------

    probe: Callable[[Any], Any] = staticmethod(lambda session: session.get("birth"))

    def request(
        self, browser: Browser, probe: Callable[[Any], Any], **given: Any
    ) -> list[str]:
        """A request that nothing interrupts; the view is ``probe``."""
        results: list[Any] = []
        self.probe = lambda session: results.append(probe(session))
        environ = browser.environ(Request("probe", (), **given))
        cookies: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            cookies[:] = [v for k, v in headers if k == "Set-Cookie"]
            results.append(status)
            return lambda data: None

        body = self.middleware(environ, start_response)
        list(body)
        getattr(body, "close", lambda: None)()
        browser.keep(cookies)
        return results

    def stored(self) -> list[Any]:
        """All sessions that are stored now."""
        return list(self.manager.sessions())

    def has(self, *kinds: str) -> bool:
        """Whether the program has faults of these kinds; of any, if none is named."""
        mine = {fault.kind for fault in self.program.faults}
        return bool(mine & set(kinds)) if kinds else bool(mine)

    @property
    def is_skewed(self) -> bool:
        return any(request.skew for request in self.program.requests)


__all__ = ["Boom", "Fault", "Simulation", "Stage", "Task", "Violation", "tokens_in"]
