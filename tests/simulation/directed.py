"""What random programs hardly meet, and what was met before, each in many orders."""

from __future__ import annotations

from collections.abc import Iterator

from .programs import show
from .scenes import Directed
from .scenes_of_identity import IDENTITY
from .scenes_of_values import VALUES
from .simulator import Simulation, Stage
from .world import listening

ALL = (*IDENTITY, *VALUES)


def played(stage: Stage, scene: Directed, *, orders: int | None = None) -> str | None:
    """Play a scene in many orders; what happened in the first that fails, or None."""
    with listening():
        for seed, choices in orders_of(scene, orders):
            sim = Simulation(stage, scene.program, seed, choices=choices, logs=True)
            if found := sim.go(scene.check):
                wrong = [f"!! {each.oracle}: {each.text}" for each in found]
                log = sim.world.log or []
                return "\n".join([scene.sentence, show(scene.program), *log, *wrong])
    return None


def orders_of(
    scene: Directed, orders: int | None = None
) -> Iterator[tuple[int, list[int] | None]]:
    """Seeds of orders; before them the choices that the scene is known to need."""
    if scene.choices:
        yield 0, list(scene.choices)
    for seed in range(scene.orders if orders is None else orders):
        yield seed, None
