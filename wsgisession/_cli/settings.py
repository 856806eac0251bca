"""Which sessions a command is about: from its arguments, the environment and a file.

Arguments win over the environment, and that over the file.  This file knows the names of
settings and no store; what it says of a file repeats none of its lines, for one of them
may be a secret.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from configparser import ConfigParser, Error, InterpolationError
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..options import PREFIX, flatten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE = "WSGISESSION_"
"""What the names of variables begin with: ``WSGISESSION_IDLE_TIMEOUT=30m``."""

Section = Mapping[str, Any]


def settings_of(
    url: str | None,
    config: Path | None,
    section: str | None,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """The settings by their bare names.

    Raises ``ConfigurationError`` where there is no saying which sessions are meant.
    """
    if section is not None and config is None:
        raise ConfigurationError("--section names a part of a file: give --config too")
    found = {} if config is None else flatten(_read(config, section), {})
    given = _from_environment(environ)
    if "url" in given or url is not None:
        for name in ("type", "data_dir"):  # another way to say the same
            found.pop(name, None)
    found |= given
    if url is not None:
        found["url"] = url
    if not found:
        raise ConfigurationError(
            f"which sessions? Give --url, --config or the variable {VARIABLE}URL"
        )
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(VARIABLE).lower(): value
        for name, value in environ.items()
        if name.startswith(VARIABLE) and value
    }


# -- files -------------------------------------------------------------------------------


def _read(path: Path, name: str | None) -> Section:
    """A section of a file, by its name or because no other can be meant."""
    is_toml = path.suffix == ".toml"
    sections = _toml(path) if is_toml else _ini(path)
    if name is not None:
        if name in sections:
            return sections[name]
        raise ConfigurationError(f"{path} has no section [{name}]; {_has(sections)}")
    ours = [each for each, values in sections.items() if _is_ours(each, values)]
    ours = ours or list(sections)
    if len(ours) == 1:
        return sections[ours[0]]
    raise ConfigurationError(
        f"choose a section of {path} by --section; {_has(sections)}"
    )


def _is_ours(name: str, values: Section) -> bool:
    """Whether settings of sessions are in a section, by its name or by theirs."""
    is_named = name.rpartition(".")[2] in ("session", "wsgisession")
    return is_named or any(key.startswith(PREFIX) for key in values)


def _has(sections: Mapping[str, Section]) -> str:
    return f"it has: {', '.join(sections) or 'none'}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not written in UTF-8") from None


def _ini(path: Path) -> dict[str, Section]:
    """All sections, in which ``%(here)s`` is the folder of the file.

    One with a ``%`` that means nothing is an error only if it is chosen.
    """
    parser = ConfigParser()
    try:
        parser.read_string(_text(path))
    except Error:
        raise ConfigurationError(f"{path} is not a well-formed .ini file") from None
    return {name: _Ini(parser, name, path) for name in parser.sections()}


class _Ini(Mapping[str, str]):
    """A section of an ``.ini`` file, whose values are put together when they are read."""

    def __init__(self, parser: ConfigParser, name: str, path: Path) -> None:
        self._parser = parser
        self._name = name
        self._path = path

    def __getitem__(self, key: str) -> str:
        if key not in self._parser[self._name]:
            raise KeyError(key)
        here = {"here": str(self._path.resolve().parent)}
        try:
            return self._parser.get(self._name, key, vars=here)
        except InterpolationError as error:
            raise ConfigurationError(
                f"{self._path}: a % in {error.option} of [{self._name}] must be written "
                "as %%"
            ) from None

    def __iter__(self) -> Any:
        return iter(self._parser[self._name])

    def __len__(self) -> int:
        return len(self._parser[self._name])


def _toml(path: Path) -> dict[str, Section]:
    """All tables by their dotted names; those within a table are none of its values."""
    try:
        whole = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError:
        raise ConfigurationError(f"{path} is not a well-formed .toml file") from None
    found: dict[str, Section] = {}
    left: list[tuple[str, dict[str, Any]]] = [("", whole)]
    while left:
        name, table = left.pop(0)
        tables = {key: each for key, each in table.items() if isinstance(each, dict)}
        values = {key: each for key, each in table.items() if key not in tables}
        if values:
            found[name or "top"] = values
        left += [(f"{name}.{key}".lstrip("."), each) for key, each in tables.items()]
    return found
