"""SynthRL's ways of mixing seeds and their harder variants (paper, section 4.3). Every scored sample counts, in seeded
order: what is always or never solved teaches nothing, and the baseline of the seeds alone has it, too."""

from collections.abc import Iterable

from pydantic import Field

from dsrl.core.component import component
from dsrl.data.sample import Sample
from dsrl.stages.select.base import Select


@component("stages.select.augment")
class Augment(Select):
    """Seeds and variants (the paper's A-MMK12)."""

    m: int | None = Field(default=None, gt=0)

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return self.shuffled("choice", samples)


@component("stages.select.replace")
class Replace(Augment):
    """A variant in the place of its seed; seeds without one stay (R-MMK12)."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        known = list(samples)
        replaced = {sample.parent_id for sample in known if sample.origin == "harder"}
        return self.shuffled("choice", (sample for sample in known if sample.id not in replaced))


@component("stages.select.seeds_only")
class SeedsOnly(Augment):
    """The seeds alone: the baseline."""

    def ranking(self, samples: Iterable[Sample]) -> list[Sample]:
        return self.shuffled("choice", (sample for sample in samples if sample.origin == "seed"))
