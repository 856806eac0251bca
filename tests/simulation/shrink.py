"""Makes a program that fails smaller, as long as it still fails in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .edition import ConfigurationError
from .programs import Program, Request, Verb, show
from .simulator import Simulation, Stage


class Failure(NamedTuple):
    """A program, the order in which it fails, and how."""

    program: Program
    seed: int
    choices: tuple[int, ...]
    oracle: str
    text: str

    def size(self) -> tuple[int, int]:
        return self.program.size(), sum(1 for choice in self.choices if choice)

    def kind(self) -> str:
        """What failures have in common that are likely the same."""
        names = sorted({n for r in self.program.requests for n in r.names()})
        return f"{self.oracle} [{' '.join(names)}]"


def attempt(
    stage: Stage, program: Program, seed: int, *, choices: tuple[int, ...] | None = None
) -> list[Failure]:
    """All violations of one run."""
    given = None if choices is None else list(choices)
    try:
        sim = Simulation(stage, program, seed, choices=given)
    except ConfigurationError:
        return []  # options that go together were taken apart
    found = sim.go()
    taken = tuple(sim.world.choices)
    return [Failure(program, seed, taken, v.oracle, v.text) for v in found]


def shrunk(stage: Stage, failure: Failure, *, orders: int = 30) -> Failure:
    """The smallest program that still fails; each try runs in a number of orders."""
    best = failure
    is_better = True
    while is_better:
        is_better = False
        for smaller in _smaller(best.program):
            found = _still_fails(stage, smaller, best, orders)
            if found is not None:
                best, is_better = found, True
                break
    return _calmer(stage, best)


def _still_fails(
    stage: Stage, program: Program, failure: Failure, orders: int
) -> Failure | None:
    for number in range(orders):
        for found in attempt(stage, program, failure.seed + number):
            if found.oracle == failure.oracle:
                return found
    return None


def _calmer(stage: Stage, failure: Failure) -> Failure:
    """The same program with as few switches as will do."""
    best = failure
    for index in range(len(failure.choices)):
        if index >= len(best.choices) or not best.choices[index]:
            continue
        fewer = (*best.choices[:index], 0, *best.choices[index + 1 :])
        for found in attempt(stage, best.program, best.seed, choices=fewer):
            if found.oracle == best.oracle:
                if sum(map(bool, found.choices)) < sum(map(bool, best.choices)):
                    best = found
                break
    return best


def _smaller(program: Program) -> Iterator[Program]:
    requests = program.requests
    for index in range(len(requests)):
        rest = tuple(
            r._replace(after="") if r.after == requests[index].name else r
            for r in (*requests[:index], *requests[index + 1 :])
        )
        if rest:
            faults = tuple(
                f for f in program.faults if f.request != requests[index].name
            )
            yield program._replace(requests=rest, faults=faults)
    for index, request in enumerate(requests):
        for less in _smaller_request(request):
            changed = (*requests[:index], less, *requests[index + 1 :])
            yield program._replace(requests=changed)
    for index in range(len(program.options)):
        options = (*program.options[:index], *program.options[index + 1 :])
        yield program._replace(options=options)
    for index in range(len(program.faults)):
        faults = (*program.faults[:index], *program.faults[index + 1 :])
        yield program._replace(faults=faults)
    if program.user is not None:
        yield program._replace(user=None)
    used = {request.browser for request in requests}
    for browser in program.browsers:
        if browser[0] not in used and browser[0] != "main":
            left = tuple(b for b in program.browsers if b != browser)
            yield program._replace(browsers=left)


def _smaller_request(request: Request) -> Iterator[Request]:
    for verbs in _smaller_verbs(request.verbs):
        if verbs:
            yield request._replace(verbs=verbs)
    plain = Request(request.name, request.verbs, request.method)
    for name in ("site", "scheme", "after", "delay", "answer", "query", "skew"):
        if getattr(request, name) != getattr(plain, name):
            yield request._replace(**{name: getattr(plain, name)})
    if request.browser == "tab":
        yield request._replace(browser="main")


def _smaller_verbs(verbs: tuple[Verb, ...]) -> Iterator[tuple[Verb, ...]]:
    for index, verb in enumerate(verbs):
        yield (*verbs[:index], *verbs[index + 1 :])
        if verb[0] in ("with", "try"):
            yield (*verbs[:index], *verb[1], *verbs[index + 1 :])
        if verb[0] in ("with", "edit", "try"):
            for inner in _smaller_verbs(verb[1]):
                if inner:
                    yield (*verbs[:index], (verb[0], inner), *verbs[index + 1 :])


def told(stage: Stage, failure: Failure, *, log: bool = True) -> str:
    """The program, the order, and what is wrong with it, for a person."""
    sim = Simulation(
        stage, failure.program, failure.seed, choices=list(failure.choices), logs=log
    )
    found = sim.go()
    lines = [
        f"{failure.oracle} (seed {failure.seed}, choices {list(failure.choices)})",
        failure.text,
        show(failure.program),
    ]
    if not any(each.oracle == failure.oracle for each in found):
        lines.append(f"(not found again: {found})")
    return "\n".join([*lines, *(sim.world.log or [])])
