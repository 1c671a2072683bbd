"""LaTeX inside JSON: `\\times` is what its author meant, not a tab and `imes`.

JSON wants `\\\\times`, and many models write `\\times`. Most such backslashes are no JSON at all (`\\alpha`, `\\(`), or
stand for control characters that no text holds (`\\beta`, `\\frac`, `\\rho`), and are taken for LaTeX whatever stands
around them. That leaves line breaks and tabs: `\\nabla` could be a line break before `abla`. The names in `SURE` are
always commands, because what would be left is no word. Those in `DOUBTFUL` could be either (`\\nu`, or a line break
before `u`): the way in which the other backslashes are written decides, and where there are none, what stands before.
"""

import re
from typing import Literal

SURE = (
    "nabla natural ncong nearrow neg neq newcommand newline ngeq ngeqq ngeqslant ngtr nleftarrow nleftrightarrow nleq "
    "nleqq nleqslant nolimits nonumber normalsize not notag notin npreceq nRightarrow nLeftarrow nrightarrow "
    "nshortmid noindent newpage newenvironment nicefrac nocite nshortparallel nsubseteq nsucceq nsupseteq "
    "ntriangleleft ntrianglelefteq ntriangleright ntrianglerighteq nvDash nvdash nwarrow tanh tau tbinom text textbf "
    "textcolor textit textmd textnormal textrm textsubscript textsuperscript textsc textsf textsl textstyle texttt "
    "textup tfrac therefore theta thickapprox thicksim thinspace tilde times tiny triangle triangledown triangleleft "
    "trianglelefteq triangleq triangleright trianglerighteq twoheadleftarrow twoheadrightarrow"
)
DOUBTFUL = "ne nexists ni nless nmid nparallel nprec nsim nsucc nu tag tan to top tt"
Style = Literal["single", "escaped", "unknown"]

BACKSLASH = re.compile(
    r"(?P<escaped>\\\\)|"
    rf"(?P<sure>\\(?:{SURE.replace(' ', '|')}))(?![A-Za-z])|"
    rf"(?P<doubtful>\\(?:{DOUBTFUL.replace(' ', '|')}))(?![A-Za-z])|"
    r'(?P<json>\\(?:["/nt]|r(?![A-Za-z])|u[0-9a-fA-F]{4}))|'
    r"(?P<bare>\\)"
)
ROW_BREAK = re.compile(r"\\\\(?=[\s\d-]|\\[A-Za-z])")
"""Two backslashes that end a row of a matrix, where commands are written with one."""
OPENING = ("$", "(", "[", "{")
"""What stands before a command rather than before a line break; in a text with formulas, a space does too."""


def mended(text: str) -> str:
    """Text with JSON in it, with every backslash doubled that its author meant as one."""
    if "\\" not in text:
        return text
    style = _style(text)
    opening = (*OPENING, " ") if "$" in text else OPENING

    def double(found: re.Match[str]) -> str:
        kind, start = found.lastgroup, found.start()
        opened = style == "unknown" and text[start - 1 : start] in opening
        if kind in ("sure", "bare") or (kind == "doubtful" and (style == "single" or opened)):
            return "\\" + found[0]
        if kind == "escaped" and style == "single" and ROW_BREAK.match(text, start):
            return 2 * found[0]
        return found[0]

    return BACKSLASH.sub(double, text)


def _style(text: str) -> Style:
    """How the author writes backslashes: one, as LaTeX has them, or two, as JSON has them."""
    found = list(BACKSLASH.finditer(text))
    single = sum(one.lastgroup in ("sure", "bare") for one in found)
    escaped = sum(one.lastgroup == "escaped" and not ROW_BREAK.match(text, one.start()) for one in found)
    if single == escaped:
        return "unknown"
    return "single" if single > escaped else "escaped"
