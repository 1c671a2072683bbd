"""The words sent to a model: Jinja files beside this one, rendered strictly (a missing variable is an error).

Their text is part of the key of every stage that uses them, so that an edited prompt is never answered from the store.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
INCLUDED = re.compile(r'{%-?\s*include "([^"]+)"')

OPTIONAL = re.compile(r"{%-?\s*(if|for)\b.*?{%-?\s*end\1\s*-?%}", re.DOTALL)
TAG = re.compile(r"{[{%].*?[%}]}", re.DOTALL)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Plain text for a model, not HTML: escaping would change what it reads.
    return Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, autoescape=False)  # noqa: S701


def render(name: str, **values: object) -> str:
    """Fill in `<name>.jinja`; raises `jinja2.UndefinedError` where the template uses a value that was not given."""
    return _environment().get_template(f"{name}.jinja").render(**values).strip()


def fixed(name: str) -> str:
    """Words of the template itself that stand in every prompt made of it."""
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return TAG.sub("", OPTIONAL.sub("", text)).strip()


def source(name: str) -> str:
    """The template's own text followed by that of the templates it includes: what a stage's key is made of."""
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return text + "".join(source(Path(part).stem) for part in INCLUDED.findall(text))
