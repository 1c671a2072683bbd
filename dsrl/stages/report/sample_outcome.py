"""What became of every row, in words that can be filtered by."""

from dataclasses import dataclass

from dsrl.data.sample import Sample
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report.difficulty import rate


@dataclass(frozen=True)
class Fates:
    """Looks up the fate of samples."""

    places: dict[str, int]
    """Id -> place among the selected, from 1."""
    control: frozenset[str]
    scored: bool
    """Whether pass rates are known at all."""

    @classmethod
    def of(cls, state: PipelineState) -> "Fates":
        return cls(
            places={identifier: place for place, identifier in enumerate(dict.fromkeys(state.selected), 1)},
            control=frozenset(state.control),
            scored=any(sample.score for sample in state.samples),
        )

    def kind(self, sample: Sample) -> str:
        """The short fate: the choices of the browser's filter."""
        if sample.id in self.places:
            return "selected"
        if not self.scored:
            return "accepted"
        value = rate(sample)
        if value is None:
            return "no pass rate"
        return "never solved" if value == 0 else "always solved" if value == 1 else "not selected"

    def words(self, sample: Sample) -> str:
        """The whole fate, as a sentence."""
        kind = self.kind(sample)
        told = {
            "selected": f"Selected for training, place {self.places.get(sample.id)} of {len(self.places)}.",
            "accepted": "Accepted; this run has no pass rates and no selection.",
            "no pass rate": "Accepted, but no reply of the base model came, so it has no pass rate.",
            "never solved": "Scored: the base model never solves it, so it was left out.",
            "always solved": "Scored: the base model always solves it, so there is nothing to learn from it.",
            "not selected": "Scored and within reach, but others came first.",
        }[kind]
        if not self.places and kind != "accepted":
            told = told.split(",")[0].rstrip(".") + "; nothing was selected in this run."
        told += " Also drawn into the random control set." if sample.id in self.control else ""
        return told + (f" Shares with a test item: {sample.matches[0].text}" if sample.matches else "")
