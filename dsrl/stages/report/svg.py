"""Small SVG charts: histograms, curves, intervals. Colours are CSS classes, so that charts follow light and dark
mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.stages.report import formatting

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 320, 168
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 12, 26
"""Margins around the plotting area."""
MIN_SMOOTHED = 16
"""Points from which a curve also shows its running mean."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A chart with its title and a line of figures."""

    title: str
    note: str
    picture: "Markup"


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    value: float
    label: str
    """Tooltip."""
    style: str = "bar"
    """CSS class."""
    below: float = 0.0
    """Height at which the bar starts, for stacked bars."""


@dataclass(frozen=True)
class Slot:
    """A position on the horizontal axis with its bars."""

    bars: tuple[Bar, ...]
    tick: str = ""
    gap: float = 0.0
    """Space to the left, in slots."""

    @property
    def height(self) -> float:
        return max((bar.below + bar.value for bar in self.bars), default=0.0)


@dataclass(frozen=True)
class Interval:
    """A share with its confidence interval."""

    name: str
    value: float
    low: float
    high: float
    style: str


def element(tag: str, *children: object, **attributes: object) -> "Markup":
    """An SVG element. Everything but Markup is escaped; `class_` becomes `class`, `_` in names becomes `-`."""
    from markupsafe import Markup, escape

    written = []
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
            written.append(f' {name.rstrip("_").replace("_", "-")}="{escape(text)}"')
    return Markup(f"<{tag}{''.join(written)}>{''.join(escape(child) for child in children)}</{tag}>")  # noqa: S704


def drawing(*children: object, label: str, height: int = HEIGHT) -> "Markup":
    """An SVG image of the common width; `label` describes it for screen readers."""
    return element("svg", *children, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label, class_="chart")


def histogram(slots: Sequence[Slot], label: str, top: float | None = None) -> "Markup":
    """Bars over a horizontal axis. Give several histograms the same `top` to compare them."""
    peak = top or max((slot.height for slot in slots), default=0) or 1
    unit = (WIDTH - LEFT - RIGHT) / sum(1 + slot.gap for slot in slots)
    scale, gap = (HEIGHT - TOP - BOTTOM) / peak, min(2.0, unit / 6)
    shapes = _grid(0, peak)
    left = float(LEFT)
    for slot in slots:
        left += slot.gap * unit
        for bar in slot.bars:
            if bar.value:
                height = max(bar.value * scale, 1.0)
                shapes.append(element(
                    "rect", element("title", bar.label), x=left + gap / 2,
                    y=HEIGHT - BOTTOM - bar.below * scale - height, width=unit - gap, height=height,
                    rx=min(1.5, unit / 4), class_=bar.style,
                ))  # fmt: skip
        if slot.tick:
            shapes.append(_tick(slot.tick, left + unit / 2))
        left += unit
    return drawing(*shapes, label=label)


def curve(points: Points, label: str, ceiling: float | None = None) -> "Markup":
    """A series over steps; with enough points the values are faint and their running mean is in front. The scale starts
    at 0 unless values are negative, and reaches at least to `ceiling`."""
    steps, values = [x for x, _ in points], [y for _, y in points]
    low, high = min(0, min(values)), max(values)
    high = max(high, ceiling or high)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    first, last = min(steps), max(steps)

    def place(x: float, y: float) -> tuple[str, str]:
        across = LEFT + (x - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f}", f"{HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    def line(values: Points, style: str) -> "Markup":
        return element("polyline", points=" ".join(",".join(place(x, y)) for x, y in values), class_=style)

    shapes = _grid(low, high)
    shapes.append(_tick(formatting.count(first), LEFT, "start"))
    shapes.append(_tick(f"step {formatting.count(last)}", WIDTH - RIGHT, "end"))
    if len(points) >= MIN_SMOOTHED:
        shapes += [line(points, "raw"), line(running_mean(points), "line")]
    else:
        shapes.append(line(points, "line"))
        for x, y in points:
            title = element("title", f"step {formatting.significant(x)}: {formatting.significant(y)}")
            across, up = place(x, y)
            shapes.append(element("circle", title, cx=across, cy=up, r=2.5, class_="dot"))
    return drawing(*shapes, label=label)


def running_mean(points: Points) -> list[tuple[float, float]]:
    """Each point's mean over the tenth of the series around it."""
    reach = max(1, len(points) // 20)
    values = [y for _, y in points]
    windows = [values[max(0, place - reach) : place + reach + 1] for place in range(len(points))]
    return [(x, sum(window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]


def intervals(rows: Sequence[Interval], label: str) -> "Markup":
    """Dots with whiskers on a scale from 0 to 100 %."""
    left, right, step = 64, 12, 34
    height = step * len(rows) + 26

    def across(share: float) -> float:
        return left + share * (WIDTH - left - right)

    shapes: list[Markup] = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = across(share)
        shapes.append(element("line", x1=x, x2=x, y1=4, y2=height - 22, class_="grid"))
        shapes.append(element("text", f"{share:.0%}".replace("%", " %"), x=x, y=height - 6, text_anchor="middle"))
    for number, row in enumerate(rows):
        y = 20.0 + step * number
        title = element("title", f"{row.name}: {formatting.percent(row.value)}")
        shapes += [
            element("text", row.name, x=0, y=y + 4, class_="name"),
            element("line", x1=across(row.low), x2=across(row.high), y1=y, y2=y, class_=f"whisker {row.style}"),
            element("circle", title, cx=across(row.value), cy=y, r=4, class_=f"mean {row.style}"),
        ]
    return drawing(*shapes, label=label, height=height)


def _tick(words: str, x: float, anchor: str = "middle") -> "Markup":
    return element("text", words, x=x, y=HEIGHT - 8, text_anchor=anchor)


def _grid(low: float, high: float) -> list["Markup"]:
    """The base line and the top of the scale, both with their values."""
    base, top = float(HEIGHT - BOTTOM), float(TOP)
    return [
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"),
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=top, y2=top, class_="grid"),
        element("text", formatting.significant(high), x=LEFT - 6, y=top + 4, text_anchor="end"),
        element("text", formatting.significant(low), x=LEFT - 6, y=base + 4, text_anchor="end"),
    ]
