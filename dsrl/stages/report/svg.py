"""Small SVG pictures: histograms, curves, intervals. Colours are CSS classes, so that they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.stages.report import formatting

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 320, 168
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 12, 26


def element(tag: str, *children: object, **attributes: object) -> "Markup":
    """An SVG element; everything that is not Markup is escaped. `class_` is `class`, `_` in names is `-`."""
    from markupsafe import Markup, escape

    named = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    written = "".join(f' {name}="{escape(_number(value))}"' for name, value in named)
    return Markup(f"<{tag}{written}>{''.join(escape(child) for child in children)}</{tag}>")  # noqa: S704


def _number(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def picture(*children: object, label: str, height: int = HEIGHT) -> "Markup":
    """An SVG of the common width that says in words what it shows."""
    box = f"0 0 {WIDTH} {height}"
    return element("svg", *children, viewBox=box, role="img", aria_label=label, class_="chart")


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    value: float
    label: str
    """Shown when pointed at."""
    style: str = "bar"
    """CSS class."""
    below: float = 0.0
    """Height at which it starts, for stacked bars."""


@dataclass(frozen=True)
class Slot:
    """A place on the horizontal axis, with the bars that stand there."""

    bars: tuple[Bar, ...]
    tick: str = ""
    gap: float = 0.0
    """Space to its left, in slots."""

    @property
    def height(self) -> float:
        return max((bar.below + bar.value for bar in self.bars), default=0.0)


def histogram(slots: Sequence[Slot], label: str, top: float | None = None) -> "Markup":
    """Bars over a horizontal axis; `top` gives several of them one scale."""
    peak = top or max((slot.height for slot in slots), default=0) or 1
    unit = (WIDTH - LEFT - RIGHT) / sum(1 + slot.gap for slot in slots)
    shapes: list[Markup] = [*_grid(0, peak)]
    left = float(LEFT)
    for slot in slots:
        left += slot.gap * unit
        shapes += [_bar(bar, left, unit, peak) for bar in slot.bars if bar.value]
        if slot.tick:
            shapes.append(_tick(slot.tick, left + unit / 2))
        left += unit
    return picture(*shapes, label=label)


def _bar(bar: Bar, left: float, unit: float, peak: float) -> "Markup":
    scale = (HEIGHT - TOP - BOTTOM) / peak
    height = max(bar.value * scale, 1.0)
    bottom = HEIGHT - BOTTOM - bar.below * scale
    gap = min(2.0, unit / 6)
    return element(
        "rect", element("title", bar.label), x=left + gap / 2, y=bottom - height, width=unit - gap, height=height,
        rx=min(1.5, unit / 4), class_=bar.style,
    )  # fmt: skip


def _tick(words: str, x: float, anchor: str = "middle") -> "Markup":
    return element("text", words, x=x, y=HEIGHT - 8, text_anchor=anchor)


def _grid(low: float, high: float) -> list["Markup"]:
    """The base line, and the top of the scale with its value."""
    base, top = float(HEIGHT - BOTTOM), float(TOP)
    return [
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"),
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=top, y2=top, class_="grid"),
        element("text", formatting.figure(high), x=LEFT - 6, y=top + 4, text_anchor="end"),
        element("text", formatting.figure(low), x=LEFT - 6, y=base + 4, text_anchor="end"),
    ]


Points = Sequence[tuple[float, float]]


def curve(points: Points, label: str, ceiling: float | None = None) -> "Markup":
    """A series over steps: as measured (faint), and its running mean where there are enough points.

    The scale starts at 0 unless there are negative values, and reaches to `ceiling` at least.
    """
    steps, values = [x for x, _ in points], [y for _, y in points]
    low, high = min(0, min(values)), max(values)
    high = max(high, ceiling or high)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    first, last = min(steps), max(steps)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    def line(values: Points, style: str) -> "Markup":
        return element("polyline", points=" ".join(place(x, y) for x, y in values), class_=style)

    smooth = running_mean(points)
    lines = [line(points, "raw"), line(smooth, "line")] if smooth else [line(points, "line")]
    dots = (
        [_dot(place(x, y), f"step {formatting.figure(x)}: {formatting.figure(y)}") for x, y in points]
        if not smooth
        else []
    )
    ticks = [
        _tick(formatting.count(first), LEFT, "start"),
        _tick(f"step {formatting.count(last)}", WIDTH - RIGHT, "end"),
    ]
    return picture(*_grid(low, high), *ticks, *lines, *dots, label=label)


def _dot(place: str, label: str) -> "Markup":
    x, _, y = place.partition(",")
    return element("circle", element("title", label), cx=x, cy=y, r=2.5, class_="dot")


def running_mean(points: Points, least: int = 16) -> list[tuple[float, float]]:
    """Means over a tenth of the points around each; nothing for fewer than `least` points."""
    reach = max(1, len(points) // 20)
    if len(points) < least:
        return []
    values = [y for _, y in points]
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(points))]
    return [(x, sum(window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, as shares."""

    name: str
    value: float
    low: float
    high: float
    style: str


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
    return picture(*shapes, label=label, height=height)
