"""Numbers as a reader wants them."""

import time

MINUS = "\u2212"
THIN = "\u202f"
MISSING = "\u2013"


def percent(share: float | None, digits: int = 1) -> str:
    """`41.2 %`; a dash where there is none."""
    return MISSING if share is None else f"{100 * share:.{digits}f}{THIN}%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of two shares in percentage points, always with its sign: `+31.1`."""
    if difference is None:
        return MISSING
    return signed(f"{100 * difference:+.{digits}f}")


def signed(number: str) -> str:
    """A formatted number with a true minus sign."""
    return number.replace("-", MINUS)


def count(number: float | None) -> str:
    """`12 345` with thin spaces from 10,000 on."""
    if number is None:
        return MISSING
    return f"{number:,.0f}".replace(",", THIN) if abs(number) >= 10_000 else f"{number:.0f}"


def figure(number: float | None) -> str:
    """Three significant digits, without an exponent where one can do without."""
    if number is None:
        return MISSING
    if number == 0 or 1e-4 <= abs(number) < 1e5:
        return signed(f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}")
    return signed(f"{number:.1e}")


def seconds(duration: float | None) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if duration is None:
        return MISSING
    if duration < 10:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def moment(unix_time: float | None) -> str | None:
    """`20 November 2026, 18:24`, in the clock of the machine."""
    return None if unix_time is None else time.strftime("%-d %B %Y, %H:%M", time.localtime(unix_time))


def dollars(usd: float | None) -> str:
    """`unknown` where the price is not known: that is not the same as free."""
    if usd is None:
        return "unknown"
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def p_value(p: float | None) -> str:
    """`p = 0.031`, `p < 0.001`."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """`1 item`, `12 items`."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
