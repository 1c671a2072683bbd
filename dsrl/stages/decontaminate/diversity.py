"""What the samples are like beside the test set: how varied, how long, and which answers they have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.forecast.workload import Load
from dsrl.graders import Choice, Label
from dsrl.pipeline.stage import Stage
from dsrl.stages.decontaminate import diversity_measures

if TYPE_CHECKING:
    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

Texts = Sequence[Sequence[str]]


@component("stages.diversity")
class Diversity(Stage):
    """Measures all samples, those selected, and the test set alike (the paper's figures 19 to 24, without an embedding
    model). Only looks, at what there is, so it is never stored."""

    name: ClassVar[str] = "diversity"
    inputs = ("samples",)
    outputs = ()
    stored: ClassVar[bool] = False
    published: ClassVar[tuple[str, ...]] = ("sets", "edges", "drawn", "answers")

    draws: int = Field(default=1000, ge=2)
    """Texts of each set, drawn at random, that are compared with each other."""
    seed: int = 0

    def expect(self, outlook: "Outlook") -> "Expectation":
        return outlook.expects(Load())

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":  # noqa: ARG002
        source = state.task.test
        items = source.load(state.task.answer) if source else []
        chosen = state.chosen(state.selected)
        texts = {
            "samples": [sample.input for sample in state.samples],
            "selected": [sample.input for sample in chosen],
            "test": [item.input for item in items],
        }
        answers = {
            "samples": [sample.answer for sample in state.samples],
            "selected": [sample.answer for sample in chosen],
            "test": [item.answer for item in items],
        }
        figures = self._measured({name: group for name, group in texts.items() if group})
        figures["answers"] = balance(answers) if isinstance(state.task.answer, (Choice, Label)) else None
        return state.add(figures=figures)

    def _measured(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Every set that isn't empty."""
        if not texts:
            return {"sets": {}, "edges": [], "drawn": 0}
        split = {name: [diversity_measures.split(text) for text in group] for name, group in texts.items()}
        lengths = {name: [len(text) for text in group] for name, group in split.items()}
        bounds = diversity_measures.edges(list(lengths.values()))
        drawn = {name: self._drawn(name, group, self.draws) for name, group in split.items()}
        equal = min((len(group) for group in drawn.values()), default=0)
        vectors = dict(zip(drawn, diversity_measures.vectors(list(drawn.values())), strict=True))
        sets = {
            name: {
                "count": len(group),
                "words": diversity_measures.spread(lengths[name]),
                "lengths": diversity_measures.histogram(lengths[name], bounds),
                "distinct": _distinct(drawn[name][:equal]),
                "similarity": diversity_measures.similarity(vectors[name]),
                "to_test": diversity_measures.nearest_in(vectors[name], vectors["test"]) if "test" in vectors else None,
            }
            for name, group in split.items()
        }
        if "test" in sets:
            sets["test"]["to_test"] = None
        return {"sets": sets, "edges": bounds, "drawn": equal}

    def _drawn(self, name: str, texts: Texts, most: int) -> Texts:
        """In seeded order, which the contents decide and not the places."""
        return sorted(texts, key=lambda text: digest([self.seed, name, text]))[:most]


def balance(answers: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Answer -> its share, the same answers for each set that isn't empty, in alphabetical order."""
    known = sorted({answer for group in answers.values() for answer in group})
    return {
        name: {answer: counts[answer] / len(group) for answer in known}
        for name, group in answers.items()
        if group and (counts := Counter(group))
    }


def _distinct(texts: Texts) -> dict[str, float | None]:
    return {str(size): diversity_measures.distinct(texts, size) for size in diversity_measures.DISTINCT}
