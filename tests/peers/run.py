"""Run peers' own suites over our adapters: ``python -m tests.peers.run FOLDER``.

The suites come from the peers' source distributions, which pip brings into the folder.
A peer's test that fails without our adapter as well is no difference.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .differences import DIFFERENCES

HERE = Path(__file__).parent
WITHOUT_SETTINGS = ("-c", os.devnull, "--rootdir", ".")
"""For pytest, which would take those of a folder above."""


def sources(folder: Path, name: str) -> Path:
    """The unpacked source distribution of a peer."""
    wanted = f"{name}=={PEERS[name].version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip, "--no-binary", ":all:", "-d", str(folder), wanted], check=True
    )
    pattern = re.compile(rf"{re.escape(name)}-[\d.]+\.tar\.gz", re.IGNORECASE)
    (archive,) = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    # A run before this one leaves a database.
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return unpacked


def by_pytest(source: Path, name: str, *, over: bool) -> str:
    """What pytest says of a peer's tests, with our adapter or without."""
    return _pytest(source, [PEERS[name].tests], name, over=over)


def by_pytest_without_settings(source: Path, name: str, *, over: bool) -> str:
    """The same for a peer that has none: those of the folders above are not its."""
    tests = [PEERS[name].tests, *WITHOUT_SETTINGS]
    return _pytest(source, tests, name, over=over)


def beakers_sessions(source: Path, name: str, *, over: bool) -> str:
    """Beaker's tests of sessions; the others are of its cache."""
    tests = source / PEERS[name].tests
    if not tests.exists():
        (source / "tests").rename(tests)  # ours is a package of that name
    kinds = ("session", "cookie_*only", "cookie_expires", "domain_setting", "increment")
    files = [path for kind in kinds for path in tests.glob(f"test_{kind}.py")]
    names = [str(path.relative_to(source)) for path in files]
    return _pytest(source, [*names, *WITHOUT_SETTINGS], name, over=over)


def _pytest(source: Path, tests: list[str], name: str, *, over: bool) -> str:
    plugin = ["-p", f"tests.peers.{PEERS[name].plugin}"] if over else []
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", *plugin]
    return _said([*command, "-p", "no:cacheprovider", *tests], source)


def by_runtests(source: Path, name: str, *, over: bool) -> str:
    """What Django's own runner says."""
    if not over:
        return ""
    command = [sys.executable, "-W", "ignore", "runtests.py", "--parallel=1"]
    command += ["--settings=tests.peers.over_django"]
    labels = ["auth_tests", "messages_tests", "sessions_tests", "our_sessions_tests"]
    link = source / "tests" / "our_sessions_tests"
    if not link.exists():
        link.symlink_to(HERE / "our_sessions_tests")
    return _said([*command, *labels], source / "tests")


def _said(command: list[str], folder: Path) -> str:
    # Not the folder that holds ``tests``: peers have one of that name.
    path = os.pathsep.join([str(HERE.parent.parent), str(folder.parent)])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "SESSION_URL": f"sqlite:///{folder}/sessions.db",
    }
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    print(run.stdout[-200:], run.stderr[-300:])
    return run.stdout + run.stderr


def failed(said: str) -> Iterator[str]:
    """The tests that failed, by pytest's words or by unittest's."""
    by_either = r"(?:FAILED|ERROR) (\S+::\S+)|(?:FAIL|ERROR): \w+ \(([\w.]+)\)"
    for found in re.finditer(f"^(?:{by_either})", said, re.MULTILINE):
        yield found[1] or found[2]


class Peer(NamedTuple):
    """A peer whose own tests are run."""

    version: str
    run: Callable[..., str]
    plugin: str = ""
    tests: str = "tests"


PEERS = {
    "Flask": Peer("3.1.3", by_pytest, "over_flask"),
    "Flask-Login": Peer("0.6.3", by_pytest, "over_flask"),
    "bottle": Peer("0.13.4", by_pytest_without_settings, "over_bottle", "test"),
    "Django": Peer("5.2.19", by_runtests),
    # The last source distribution of Beaker that holds its tests.
    "Beaker": Peer("1.13.0", beakers_sessions, "over_beaker", "beaker_tests"),
}


def main(folder: Path) -> int:
    """Every peer in turn; 1 if one differs otherwise than it is written."""
    status = 0
    for name, peer in PEERS.items():
        print(f"--- {name} {peer.version}")
        source = sources(folder, name)
        said = peer.run(source, name, over=True)
        if not re.search(r"\d+ passed|^Ran \d+ tests", said, re.MULTILINE):
            print(f"{name}: no test was run")
            status = 1
        found = set(failed(said)) - set(failed(peer.run(source, name, over=False)))
        for test in sorted(found ^ DIFFERENCES[name].keys()):
            word = "differs" if test in found else "differs no more"
            print(f"{name}: {test} {word}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
