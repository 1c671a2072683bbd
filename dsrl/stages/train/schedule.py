"""How many updates there are and which samples each of them sees."""

import random

from dsrl.core.digest import digest
from dsrl.core.errors import UserError


def num_steps(num_rows: int, per_step: int, epochs: int, max_steps: int | None, knob: str) -> int:
    """Updates in all; a last batch that isn't full is left out. Raises `UserError` for fewer samples than a batch."""
    if num_rows < per_step:
        raise UserError(
            "fewer samples to train on than one update needs",
            got=f"{num_rows} samples, {knob}={per_step}",
            next_step=f"raise m (and n), or give {knob}={max(1, num_rows)} or less",
        )
    return max_steps or num_rows * epochs // per_step


def order(num_rows: int, count: int, seed: int) -> tuple[int, ...]:
    """`count` row numbers: one shuffled epoch after another."""
    rows: list[int] = []
    epoch = 0
    while len(rows) < count:
        numbers = list(range(num_rows))
        random.Random(digest([seed, "epoch", epoch])).shuffle(numbers)
        rows.extend(numbers)
        epoch += 1
    return tuple(rows[:count])


def device_batch(wanted: int | None, per_step: int) -> int:
    """The largest divisor of an update's rows that is not above the wanted number."""
    return max(size for size in range(1, per_step + 1) if per_step % size == 0 and size <= (wanted or per_step))
