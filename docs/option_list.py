"""The directive ``option-list``: every option with its type, default and danger.

It is made of ``wsgisession.options``, where each option has a line of its own and a
docstring below it, so that this page cannot differ from the code.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from wsgisession import options


class Described(NamedTuple):
    """What the page says of an option."""

    name: str
    type: str
    default: str
    text: str


def shown(name: str, default: object) -> str:
    """A default as people say it: seconds with their unit."""
    if name == "secret":
        return "none"
    if isinstance(default, float):
        for seconds, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
            if default >= seconds and default % seconds == 0:
                return f"{default:.0f} seconds, {default / seconds:.0f} {unit}"
        return f"{default:.0f} seconds"
    return repr(default)


def described() -> Iterator[Described]:
    """The options in the order of the source."""
    tree = ast.parse(inspect.getsource(options))
    (made,) = [node for node in tree.body if getattr(node, "name", "") == "Options"]
    assert isinstance(made, ast.ClassDef)
    defaults = options.Options()
    for field, doc in zip(made.body, made.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(doc, ast.Expr):
            continue
        assert isinstance(field.target, ast.Name)
        assert isinstance(doc.value, ast.Constant)
        name = field.target.id
        yield Described(
            name=name,
            type=ast.unparse(field.annotation),
            default=shown(name, getattr(defaults, name)),
            text=inspect.cleandoc(str(doc.value.value)),
        )


class OptionList(SphinxDirective):
    """A definition list of all options."""

    def run(self) -> list[nodes.Node]:
        """Each option as a definition."""
        lines: list[str] = []
        for each in described():
            lines += [f".. py:attribute:: {each.name}", f"   :type: {each.type}", ""]
            lines += [f"   Default: ``{each.default}``.", ""]
            lines += [f"   {line}" for line in each.text.splitlines()]
            lines += [""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("option-list", OptionList)
    return {"parallel_read_safe": True}
