"""Programs of requests in every order of their store calls, watched by the oracles.

Every day a few; where LONG_TESTS=1 as many as the design asks for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import directed, edition
from .hunt import Hunt
from .scenes import Directed
from .simulator import Stage
from .stages import stage_of

pytestmark = pytest.mark.skipif(
    edition.IS_FIRST, reason="the first edition is known to fail"
)

IS_LONG = os.environ.get("LONG_TESTS") == "1"
ON_MEMORY = 20_000 if IS_LONG else 2000
ON_A_SERVER = 500 if IS_LONG else 25
ORDERS_ON_A_SERVER = 20 if IS_LONG else 2


@pytest.fixture
def memory() -> Iterator[Stage]:
    with stage_of("memory") as made:
        yield made


@pytest.fixture(scope="module")
def real(kind: str, url_of_kind: str) -> Iterator[Stage]:
    """A stage on a store that is not in the memory of this process."""
    with stage_of(kind, url_of_kind) as made:
        yield made


on_each_real_store = pytest.mark.parametrize(
    "kind",
    ["file", "sqlite", "redis", "postgresql", "mariadb"],
    indirect=True,
    scope="session",
)


@pytest.mark.parametrize("scene", directed.ALL, ids=lambda scene: scene.sentence)
def test_a_scene_in_many_orders(memory: Stage, scene: Directed) -> None:
    """What the sentence of the scene says, and all that is promised anyway."""
    wrong = directed.played(memory, scene)
    assert wrong is None, wrong


def test_random_programs(memory: Stage) -> None:
    """Nothing that no run may show; what is found is printed with its seed."""
    hunt = Hunt(memory, shrink=1)
    for seed in range(ON_MEMORY):
        hunt.seed(seed)
    assert not hunt.failures, hunt.report(log=True)


@on_each_real_store
def test_random_programs_on_a_real_store(real: Stage) -> None:
    """The same where every call goes to a disk or to a server."""
    hunt = Hunt(real, shrink=1)
    for seed in range(ON_A_SERVER):
        hunt.seed(seed)
    assert not hunt.failures, hunt.report(log=True)


@on_each_real_store
def test_scenes_on_a_real_store(real: Stage) -> None:
    """Each in a few orders."""
    played = [
        directed.played(real, scene, orders=ORDERS_ON_A_SERVER)
        for scene in directed.ALL
    ]
    wrong = [each for each in played if each is not None]
    assert not wrong, "\n\n".join(wrong)
