"""What measuring a model on a test set gives."""

import dataclasses
from typing import Any

from dsrl.core.component import Many, record


@record
class Estimate:
    """A mean over test items with its 95 % interval."""

    value: float
    low: float
    high: float


@record
class Setting:
    """What was measured on what, and how: two evaluations can be compared as far as these agree."""

    name: str
    """Of the model, for people."""
    model: str
    """Fingerprint."""
    test: str
    """Fingerprint of the test set."""
    grader: str
    """Digest of the answer kind with its options."""
    samples_per_item: int
    temperature: float
    top_p: float
    max_tokens: int


@record
class Subject:
    """How the model does on the items of one subject."""

    name: str
    num_items: int
    pass_at_1: Estimate | None
    """None where no sampled reply came."""
    greedy: Estimate | None

    def metrics(self) -> dict[str, Any]:
        estimates = {"pass_at_1": self.pass_at_1, "greedy": self.greedy}
        return {"n": self.num_items, **{name: one and dataclasses.asdict(one) for name, one in estimates.items()}}


@record
class Siblings:
    """How the model does on groups of items, such as the variants of one question: the unit that is independent."""

    num_groups: int
    pass_at_1: Estimate | None
    """Mean over groups of their items' share of right sampled replies, bootstrapped over groups."""
    worst: Estimate | None
    """Share of groups whose greedy replies are all right, with Wilson's interval."""

    def metrics(self) -> dict[str, Any]:
        estimates = {"pass_at_1": self.pass_at_1, "worst": self.worst}
        return {"n": self.num_groups, **{name: one and dataclasses.asdict(one) for name, one in estimates.items()}}


@record
class Evaluation(Setting):
    """How one model does on the test set. Figures of single items are kept, so that two models can be paired."""

    num_items: int
    pass_at_1: Estimate
    """Mean share of right replies among the sampled ones; its interval is bootstrapped over items, as those below."""
    greedy: Estimate
    """Share of items whose greedy reply is right, with Wilson's interval."""
    format_ok: Estimate
    """Share of sampled replies with a readable answer where the instruction wants it."""
    format_free: Estimate
    """Share of sampled replies with the right answer in any format."""
    truncated: Estimate
    """Share of sampled replies cut at the token limit."""
    num_errors: int
    """Replies that never came; missing from every share."""
    item_rates: Many[float | None]
    """Share of right sampled replies, item by item; None where no reply came."""
    item_greedy: Many[bool | None]
    """Whether the greedy reply is right, item by item; None where it never came."""
    item_shares: dict[str, Many[float | None]] = dataclasses.field(default_factory=dict)
    """`format_ok`, `format_free` and `truncated`, item by item; None if no reply came."""
    item_units: Many[int] = ()
    """Number of the independent unit that each item belongs to: items of one group, or with the same question, share
    one."""
    item_subjects: Many[str | None] = ()
    """Subject of each item; empty where the task names no column for it."""
    subjects: Many[Subject] = ()
    """By subject, in alphabetical order."""
    item_tiers: Many[str | None] = ()
    """How hard each item is; empty where no ratings were given."""
    tiers: Many[Subject] = ()
    """From easy to hard, then the unrated."""
    siblings: Siblings | None = None
    """None where items have no siblings."""
    overlap: dict[str, int] = dataclasses.field(default_factory=dict)
    """Test items whose text also occurs in `training` samples or in the model's `pretraining` corpus, where known."""

    @property
    def num_units(self) -> int:
        return len(set(self.item_units)) if self.item_units else self.num_items

    @property
    def num_answered(self) -> int:
        """Items with at least one sampled reply."""
        return sum(rate is not None for rate in self.item_rates)

    def metrics(self) -> dict[str, Any]:
        """The fields that `metrics.json` shows for a model (docs/metrics.md)."""
        shares = {name: getattr(self, name) for name in ("greedy", "format_ok", "format_free", "truncated")}
        return {
            "n": self.num_items,
            "num_units": self.num_units,
            "num_answered": self.num_answered,
            "samples_per_item": self.samples_per_item,
            "temperature": self.temperature,
            "pass_at_1": self.pass_at_1.value,
            "low": self.pass_at_1.low,
            "high": self.pass_at_1.high,
            **{name: share.value for name, share in shares.items()},
            "intervals": {name: [share.low, share.high] for name, share in shares.items()},
            "num_errors": self.num_errors,
            "subjects": {subject.name: subject.metrics() for subject in self.subjects},
            "tiers": {tier.name: tier.metrics() for tier in self.tiers},
            "groups": self.siblings and self.siblings.metrics(),
        }
