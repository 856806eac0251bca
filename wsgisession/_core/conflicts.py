"""What becomes of keys that were read here and changed by another request, where neither
a lock nor a second run could help: ``on_conflict`` decides, and the loss is told.

It knows a working copy and the options, and nothing of how it is saved.
"""

from __future__ import annotations

from ..errors import SessionConflict
from ..events import Conflicted
from .merge import WorkingCopy
from .repository import Repository, log


def decide(
    repository: Repository, copy: WorkingCopy, keys: frozenset[str], *, id: str
) -> None:
    """Make of the copy what is to be written.

    Raises ``SessionConflict`` where no loss is accepted, and whatever the application's
    own function raises.
    """
    on_conflict = repository.options.on_conflict
    named, overwritten = tuple(sorted(keys)), tuple(sorted(copy.overwritten()))
    repository.tell(Conflicted(id=id, keys=named, overwritten=overwritten))
    if on_conflict == "raise":
        raise SessionConflict(id, keys)
    if callable(on_conflict):
        copy.accept(on_conflict(copy.conflict(id)))
        return
    log.warning(
        "session %s: another request changed %s, which this request had read; it could "
        "be neither locked nor run again, so what it made of them was written. "
        "Changes of the other request that were overwritten: %s",
        id,
        ", ".join(named),
        ", ".join(overwritten) or "none",
    )
    copy.keep_ours()
