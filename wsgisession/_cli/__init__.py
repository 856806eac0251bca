"""The command line, ``python -m wsgisession``: here only whether it can be had.

What it needs beyond the library (click, rich) is the extra ``[cli]``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

MISSING = (
    "wsgisession: the command line needs {}; install it with: "
    'python -m pip install "wsgisession-middleware[cli]"\n'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status of the process.

    0 done, 1 failed (a store that is out of reach, a session that is not there), 2
    misused, 130 interrupted.
    """
    try:
        from .commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wsgisession"):
            raise
        sys.stderr.write(MISSING.format(error.name))
        return 2
    return run(argv)
