"""How Sphinx makes these pages: ``python -m nox -s docs``."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))
sys.path.insert(0, str(PROJECT / "docs"))

import wsgisession  # noqa: E402

project = "wsgisession"
copyright = "the wsgisession authors"
version = release = wsgisession.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx_inline_tabs",
    "sphinx_copybutton",
    "option_list",
]
exclude_patterns = ["_build"]
add_module_names = False
nitpicky = True
nitpick_ignore_regex = [
    # Types of others and type variables, which have no page.
    (
        r"py:.*",
        r"(?!wsgisession)[\w.]+",
    ),
    # Names with an underscore are private; a signature may show one.
    (r"py:.*", r"wsgisession\.([\w.]+\.)?_\w+.*"),
]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 70

html_theme = "furo"
html_title = f"wsgisession {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
copybutton_exclude = ".linenos, .gp, .go"
