"""Progress as text: one line, or a block that fits a terminal."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dsrl.pipeline.progress.snapshot import Spent, View

if TYPE_CHECKING:
    from rich.text import Text

LABEL_WIDTH, BAR_WIDTH = 10, 30
MOST_REASONS = 4


def line(view: View) -> str:
    """Everything in one line."""
    return f"  {view.label:<{LABEL_WIDTH}} " + "  ".join([count(view), *segments(view)])


def lines(view: View, width: int) -> list[str]:
    """A block with no line wider than `width`."""
    indent = " " * (LABEL_WIDTH + 1)
    room = max(10, width - len(indent) - 1)
    head = "  ".join([bar(view, min(BAR_WIDTH, max(0, room - len(count(view)) - 2))), count(view)]).strip()
    label = f"{view.label[:LABEL_WIDTH]:<{LABEL_WIDTH}} "
    return [label + head[:room], *(indent + text for text in flow(segments(view), room))]


def text(views: Iterable[View], width: int) -> "Text":
    """Text for a terminal, with coloured bars."""
    from rich.text import Text

    block = Text("\n".join(row for view in views for row in lines(view, width)), no_wrap=True, overflow="crop")
    block.highlight_regex("━+", "cyan")
    block.highlight_regex("─+", "dim")
    block.highlight_regex("down for .*", "bold red")
    return block


def flow(parts: Iterable[str], width: int) -> list[str]:
    """Put parts side by side as far as they fit."""
    rows: list[str] = []
    for part in parts:
        if rows and len(rows[-1]) + 2 + len(part) <= width:
            rows[-1] += f"  {part}"
        else:
            rows.append(part[:width])
    return rows


def bar(view: View, width: int) -> str:
    if not view.total or width < 4:
        return ""
    full = min(width, width * view.done // view.total)
    return "━" * full + "─" * (width - full)


def count(view: View) -> str:
    """`123/400 accepted  1.5/s  ETA 3 min`."""
    done = f"{view.done}/{view.total}" if view.total else str(view.done)
    parts = [f"{done} accepted" if view.accepts else done, f"{short(view.rate)}/s"]
    if view.total and view.done < view.total:
        parts.append("ETA ?" if view.seconds_left is None else f"ETA {duration(view.seconds_left)}")
    return "  ".join(parts)


def segments(view: View) -> list[str]:
    """What is shown beside the count, most important first."""
    down = view.seconds_down
    own = [f"{name} {value}" for name, value in view.figures.items() if name != "rejected"]
    return [
        *([f"down for {duration(down)}"] if down is not None else []),
        *_rejected(view),
        *own,
        *_traffic(view),
        *(_spent(view, view.spent) if view.spent is not None and view.spent.requests else []),
    ]


def _rejected(view: View) -> list[str]:
    reasons = view.figures.get("rejected")
    if not isinstance(reasons, Mapping):
        return [f"rejected {reasons}"] if reasons else []
    if not reasons:
        return []
    most = sorted(reasons.items(), key=lambda pair: -pair[1])
    words = [f"{number} {reason}" for reason, number in most[:MOST_REASONS]]
    rest = sum(number for _, number in most[MOST_REASONS:])
    return [f"rejected {view.num_rejected}: " + ", ".join(words + ([f"{rest} other"] if rest else []))]


def _traffic(view: View) -> list[str]:
    """Rate and concurrency of the clients; for batches the state of their jobs, which have neither."""
    jobs = [each.batch for each in view.traffic if each.batch is not None]
    single = [each for each in view.traffic if each.batch is None]
    if not any(each.requests or each.in_flight for each in single):
        return jobs
    in_flight, limit, ceiling = (
        sum(getattr(each, name) for each in single) for name in ("in_flight", "limit", "ceiling")
    )
    speed = sum(each.requests_per_second for each in single)
    shown = [*jobs, f"{speed:.3g} requests/s", f"in flight {in_flight} (limit {limit} of {ceiling})"]
    return shown + ([f"429s {view.throttled_share:.1%}"] if view.throttled_share else [])


def _spent(view: View, spent: Spent) -> list[str]:
    tokens = f"tokens {short(spent.input_tokens)} in, {short(spent.output_tokens)} out"
    if spent.usd is None:
        known = f"at least {dollars(spent.known_usd)}" if spent.known_usd else "unknown"
        return [tokens, f"dollars {known}"]
    if spent.usd == 0 and not spent.hit_usd:
        return [tokens]
    projected = "?" if view.projected_usd is None else dollars(view.projected_usd)
    return [tokens, f"{dollars(spent.usd)} of about {projected}"]


def dollars(value: float) -> str:
    return f"${value:.2f}" if value >= 1 else f"${value:.4f}"


def short(number: float) -> str:
    """`1.23M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
