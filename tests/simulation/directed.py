"""What random programs hardly meet, and every fault that was met before, in many orders.

Where a scene says ``first``, the first edition is known to fail it.
"""

from __future__ import annotations

from .programs import show
from .scenes import Directed
from .scenes_of_identity import IDENTITY
from .scenes_of_values import VALUES
from .simulator import Simulation, Stage
from .world import listening

ALL = (*IDENTITY, *VALUES)


def played(stage: Stage, scene: Directed, *, orders: int | None = None) -> str | None:
    """Play a scene in many orders; what happened in the first that fails, or None."""
    tries: list[tuple[int, list[int] | None]] = [
        (seed, None) for seed in range(scene.orders if orders is None else orders)
    ]
    if scene.choices:
        tries.insert(0, (0, list(scene.choices)))
    with listening():
        for seed, choices in tries:
            sim = Simulation(stage, scene.program, seed, choices=choices, logs=True)
            if found := sim.go(scene.check):
                wrong = [f"!! {each.oracle}: {each.text}" for each in found]
                log = sim.world.log or []
                return "\n".join([scene.sentence, show(scene.program), *log, *wrong])
    return None
