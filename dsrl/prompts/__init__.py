"""Prompt templates: the Jinja files in this folder, rendered strictly, so that a missing variable is an error.

A template's text is part of the key of every stage that uses it: an edited prompt is never answered from the cache.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
INCLUDE = re.compile(r'{%-?\s*include "([^"]+)"')
OPTIONAL_BLOCK = re.compile(r"{%-?\s*(if|for)\b.*?{%-?\s*end\1\s*-?%}", re.DOTALL)
TAG = re.compile(r"{[{%].*?[%}]}", re.DOTALL)


def render(name: str, **values: object) -> str:
    """Render `<name>.jinja`. Raises `jinja2.UndefinedError` for a missing value."""
    return _environment().get_template(f"{name}.jinja").render(**values).strip()


def literal_text(name: str) -> str:
    """The text that every prompt from this template contains: without variables and optional blocks."""
    return TAG.sub("", OPTIONAL_BLOCK.sub("", _read(name))).strip()


def source(name: str) -> str:
    """The template's text followed by that of the templates it includes, for the keys of stages."""
    text = _read(name)
    return text + "".join(source(Path(included).stem) for included in INCLUDE.findall(text))


def _read(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Plain text for a model, not HTML: escaping would change what it reads.
    return Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, autoescape=False)  # noqa: S701
