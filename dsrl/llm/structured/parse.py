r"""Parse an object from a model's reply: tolerant of what surrounds it, strict on its fields, never evaluated.

LaTeX inside JSON needs care. JSON requires `\\times`, but many models write `\times`, which JSON reads as a tab and
`imes`. Most such backslashes are not valid JSON (`\alpha`, `\(`) or stand for control characters that no text contains
(`\beta`, `\frac`, `\rho`), and are always taken for LaTeX. That leaves line breaks and tabs: `\nabla` could be a line
break before `abla`. Names in `LATEX_COMMANDS` are always commands, because the rest would not be a word. Names in
`AMBIGUOUS_COMMANDS` could be either (`\nu`, or a line break before `u`): the style of the other backslashes in the
text decides, and without others, the character before.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from dsrl.core.text import clean_strings, find_control, strip_thoughts

Fields = TypeVar("Fields", bound=BaseModel)
ParseFailure = Literal["not JSON", "wrong fields", "refused", "truncated", "no answer"]
DECODER = json.JSONDecoder(strict=False)
MAX_STARTS = 500
"""Positions in one reply at which an object is tried."""
MAX_ERRORS, MAX_DETAIL = 5, 1000
SPLIT_ESCAPE = re.compile(r"(?<!\\)\\u0000([89a-fA-F][0-9a-fA-F])")
"""Some models write `\\u0000e9` for `\\u00e9`."""
OBJECT_START = re.compile(r'\{\s*["}]')

LATEX_COMMANDS = (
    "nabla natural ncong nearrow neg neq newcommand newline ngeq ngeqq ngeqslant ngtr nleftarrow nleftrightarrow nleq "
    "nleqq nleqslant nolimits nonumber normalsize not notag notin npreceq nRightarrow nLeftarrow nrightarrow "
    "nshortmid noindent newpage newenvironment nicefrac nocite nshortparallel nsubseteq nsucceq nsupseteq "
    "ntriangleleft ntrianglelefteq ntriangleright ntrianglerighteq nvDash nvdash nwarrow tanh tau tbinom text textbf "
    "textcolor textit textmd textnormal textrm textsubscript textsuperscript textsc textsf textsl textstyle texttt "
    "textup tfrac therefore theta thickapprox thicksim thinspace tilde times tiny triangle triangledown triangleleft "
    "trianglelefteq triangleq triangleright trianglerighteq twoheadleftarrow twoheadrightarrow"
)
AMBIGUOUS_COMMANDS = "ne nexists ni nless nmid nparallel nprec nsim nsucc nu tag tan to top tt"
BACKSLASH = re.compile(
    r"(?P<escaped>\\\\)|"
    rf"(?P<command>\\(?:{LATEX_COMMANDS.replace(' ', '|')}))(?![A-Za-z])|"
    rf"(?P<ambiguous>\\(?:{AMBIGUOUS_COMMANDS.replace(' ', '|')}))(?![A-Za-z])|"
    r'(?P<json>\\(?:["/nt]|r(?![A-Za-z])|u[0-9a-fA-F]{4}))|'
    r"(?P<bare>\\)"
)
ROW_BREAK = re.compile(r"\\\\(?=[\s\d-]|\\[A-Za-z])")
"""Two backslashes that end a row of a matrix in text that writes commands with one."""
BEFORE_COMMAND = ("$", "(", "[", "{")
"""Characters that precede a command rather than a line break; in text with formulas, a space does too."""


class UnusableError(Exception):
    """A reply that is not the requested object."""

    def __init__(self, kind: ParseFailure, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def parse_object(text: str, schema: type[Fields]) -> Fields:
    """The last JSON object in the text that fits the schema, fenced or not; else the fields between tags.

    Thoughts are removed first. The last object counts because models correct themselves forwards. Strings may hold raw
    line breaks, and LaTeX is kept as written. Raises `UnusableError`.
    """
    text = strip_thoughts(text, keep=frozenset(schema.model_fields))
    problem = UnusableError(
        "not JSON", "there is no JSON object in it, and no field between tags" if text.strip() else "the reply is empty"
    )
    for value in (*reversed(list(json_objects(text))), *tagged_fields(text, schema)):
        try:
            parsed = schema.model_validate(value)
        except ValidationError as error:
            detail = _first_errors(error)
        else:
            control = find_control(value)
            if control is None:
                return parsed
            detail = f"a string contains the control character {control}"
        if problem.kind == "not JSON":
            problem = UnusableError("wrong fields", detail)
    raise problem


def _first_errors(error: ValidationError) -> str:
    """The first few errors: the text becomes part of a repair prompt, and a long list can have thousands."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    details = [f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in errors[:MAX_ERRORS]]
    more = [f"and {len(errors) - MAX_ERRORS} more errors"] if len(errors) > MAX_ERRORS else []
    return "; ".join([*details, *more])[:MAX_DETAIL]


def json_objects(text: str) -> Iterator[Any]:
    """The outermost JSON objects in a text, in order."""
    first = OBJECT_START.search(text)
    if first is None:
        return
    text, position = escape_latex(SPLIT_ESCAPE.sub(r"\\u00\1", text[first.start() :])), 0
    for _ in range(MAX_STARTS):
        found = OBJECT_START.search(text, position)
        if found is None:
            return
        try:
            value, position = DECODER.raw_decode(text, found.start())
            value = clean_strings(value)
        except (ValueError, RecursionError):
            position = found.start() + 1
        else:
            yield value


def tagged_fields(text: str, schema: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """At most one object: the fields that stand between tags of their names, strings as they are, others as JSON."""
    values: dict[str, Any] = {}
    for name, info in schema.model_fields.items():
        start = text.find(f"<{name}>")
        end = text.find(f"</{name}>", start) if start >= 0 else -1
        if end >= 0:
            values[name] = clean_strings(text[start + len(name) + 2 : end].strip())
            if info.annotation is not str:
                try:
                    values[name] = json.loads(values[name])
                except (ValueError, RecursionError):
                    continue
    if values:
        yield values


def escape_latex(text: str) -> str:
    """Text with JSON in it, in which every backslash that belongs to LaTeX is doubled."""
    if "\\" not in text:
        return text
    style = _backslash_style(text)
    opening = (*BEFORE_COMMAND, " ") if "$" in text else BEFORE_COMMAND

    def double(found: re.Match[str]) -> str:
        kind, start = found.lastgroup, found.start()
        opened = style == "unknown" and text[start - 1 : start] in opening
        if kind in ("command", "bare") or (kind == "ambiguous" and (style == "single" or opened)):
            return "\\" + found[0]
        if kind == "escaped" and style == "single" and ROW_BREAK.match(text, start):
            return 2 * found[0]
        return found[0]

    return BACKSLASH.sub(double, text)


def _backslash_style(text: str) -> Literal["single", "escaped", "unknown"]:
    """Whether the author writes one backslash, as LaTeX does, or two, as JSON requires."""
    found = list(BACKSLASH.finditer(text))
    single = sum(one.lastgroup in ("command", "bare") for one in found)
    escaped = sum(one.lastgroup == "escaped" and not ROW_BREAK.match(text, one.start()) for one in found)
    if single == escaped:
        return "unknown"
    return "single" if single > escaped else "escaped"
