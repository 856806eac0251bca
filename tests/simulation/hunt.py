"""Runs seeds, and sorts what fails by kind."""

from __future__ import annotations

from collections import Counter

from .programs import draw, show
from .shrink import Failure, attempt, shrunk, told
from .simulator import Simulation, Stage
from .world import listening


class Hunt:
    """Many runs on one stage."""

    def __init__(
        self,
        stage: Stage,
        *,
        kind: str | None = None,
        shrink: int = 6,
        only: str | None = None,
    ) -> None:
        self.stage, self.kind, self.shrink, self.only = stage, kind, shrink, only
        self.count = 0
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, Failure] = {}
        """The smallest of each kind."""

    def seed(self, seed: int) -> list[Failure]:
        """Run the program of a seed; what is found is shrunk, a few times an oracle."""
        with listening():
            program = draw(seed, self.kind)
            self.count += 1
            found = attempt(self.stage, program, seed)
            for failure in found:
                if self.only and not failure.oracle.startswith(self.only):
                    continue
                self.counts[failure.oracle] += 1
                if self.counts[failure.oracle] <= self.shrink:
                    self._note(shrunk(self.stage, failure))
        return found

    def _note(self, failure: Failure) -> None:
        before = self.failures.get(failure.kind())
        if before is None or failure.size() < before.size():
            self.failures[failure.kind()] = failure

    def one(self, seed: int) -> str:
        """What happens with one seed."""
        with listening():
            program = draw(seed, self.kind)
            sim = Simulation(self.stage, program, seed, logs=True)
            found = sim.go()
        lines = [show(program), *(sim.world.log or [])]
        return "\n".join([*lines, *(f"!! {o}: {text}" for o, text in found)])

    def report(self, *, log: bool = False) -> str:
        """Everything found, the smallest program of each kind."""
        lines = [f"{n:6} {oracle}" for oracle, n in sorted(self.counts.items())]
        with listening():
            for kind in sorted(self.failures):
                failure = self.failures[kind]
                lines += ["", "=" * 8, told(self.stage, failure, log=log)]
        return "\n".join(lines)
