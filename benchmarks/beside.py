"""Two editions in one run: ``python -m benchmarks.sessions --beside FOLDER``.

Each edition runs in a process of its own, and only one of them works at a time.  A round
has a short block of every line for both editions, one directly after the other, so that
whatever else the machine does meets both alike.  The quotient is taken within a round;
the table gives the median of the quotients.  An edition beside itself gives 1.00 with two
percent or so, but not where files are written to a disk: there two folders are never
alike, so give ``--folder`` on one in memory, such as /dev/shm.

This file knows processes and no session.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

BLOCK = 0.004
WORKER = Path(__file__).with_name("visits.py")

Configs: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The settings of each store, by the name that stands in the table."""


class Worker:
    """A process that measures the edition in a folder, one block at a time."""

    def __init__(self, folder: Path, configs: Configs) -> None:
        # A script, and no module: of the path only the folder decides what is imported.
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(configs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
        imported, self.lines = self._answer()
        if not Path(imported).is_relative_to(folder):
            raise RuntimeError(f"{imported} was imported, which is not in {folder}")

    def cost(self, line: str, times: int) -> float:
        """Seconds that the session adds to a request, as the mean of a block."""
        with_session, without = self.block(line, times)
        return with_session - without

    def block(self, line: str, times: int) -> Sequence[float]:
        """Seconds that a request takes with a session, and without."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([line, times]) + "\n")
        self._process.stdin.flush()
        answer: Sequence[float] = self._answer()
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()


def compare(
    first: Path, second: Path, configs: tuple[Configs, Configs], rounds: int
) -> Iterator[str]:
    """A line for each store and kind of request: microseconds, and second by first."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(folder.resolve(), each))
            for folder, each in zip((first, second), configs, strict=True)
        ]
        lines = [line for line in workers[0].lines if line in workers[1].lines]
        times = {line: _times(workers, line) for line in lines}
        costs: dict[str, list[list[float]]] = {line: [] for line in lines}
        for _ in range(rounds):
            for line in random.sample(lines, len(lines)):
                pair = [0.0, 0.0]
                for number in random.sample((0, 1), 2):
                    pair[number] = workers[number].cost(line, times[line])
                costs[line].append(pair)
    yield f"{'':20}{'first us':>10}{'second us':>11}{'second/first':>14}"
    for line in lines:
        lowest = [min(each) * 1e6 for each in zip(*costs[line], strict=True)]
        ratio = statistics.median(new / old for old, new in costs[line])
        yield f"{line:20}{lowest[0]:10.1f}{lowest[1]:11.1f}{ratio:14.2f}"


def _times(workers: Sequence[Worker], line: str) -> int:
    """How often both are called in a block of about ``BLOCK`` seconds."""
    return max(1, int(BLOCK / max(worker.block(line, 20)[0] for worker in workers)))
