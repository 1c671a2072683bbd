"""Numbers as the page prints them."""

import re
import time
from collections.abc import Sequence

MINUS = "\u2212"
THIN_SPACE = "\u202f"
MISSING = "\u2013"
INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    "|(?<![^\u0000-\u02ff])[\u200c\u200d]|[\u200c\u200d](?![^\u0000-\u02ff])"
)
"""Characters that no reader sees, or that reorder text. Joiners inside words of other scripts, and inside emoji, belong
there. report.js has the same list."""


def percent(share: float | None, digits: int = 1) -> str:
    """`41.2 %`; a dash for None."""
    return MISSING if share is None else f"{100 * share:.{digits}f}{THIN_SPACE}%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of two shares in percentage points, always with its sign: `+31.1`."""
    return MISSING if difference is None else signed(f"{100 * difference:+.{digits}f}")


def signed(number: str) -> str:
    """A formatted number with a typographic minus sign."""
    return number.replace("-", MINUS)


def count(number: float | None) -> str:
    """`1234`, and from 10,000 on `12 345` with thin spaces."""
    if number is None:
        return MISSING
    return f"{number:,.0f}".replace(",", THIN_SPACE) if abs(number) >= 10_000 else f"{number:.0f}"


def significant(number: float | None) -> str:
    """Three significant digits; an exponent only below 0.0001 and from 100,000 on."""
    if number is None:
        return MISSING
    if number == 0 or 1e-4 <= abs(number) < 1e5:
        return signed(f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}")
    return signed(f"{number:.1e}")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def timestamp(unix_time: float | None) -> str | None:
    """`20 November 2026, 18:24`, in the machine's time zone."""
    return None if unix_time is None else time.strftime("%-d %B %Y, %H:%M", time.localtime(unix_time))


def dollars(usd: float | None) -> str:
    """`$12.30`, `$0.0423`; `unknown` for None, because an unknown price is not zero."""
    if usd is None:
        return "unknown"
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def p_value(p: float | None) -> str:
    """`p = 0.031`, `p < 0.001`; empty for None."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def plural(number: float, noun: str, many: str | None = None) -> str:
    """`1 item`, `12 items`."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def join_words(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def show_invisible(text: str) -> str:
    """The text with invisible and direction characters spelled out, such as `\u27e8U+202E\u27e9`. Markup stays
    Markup."""
    return type(text)(INVISIBLE.sub(lambda found: f"\u27e8U+{ord(found[0]):04X}\u27e9", text))
