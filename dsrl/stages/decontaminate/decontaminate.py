"""Samples that give test items away: found after all that is paid for, so that another test set costs no replies."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dsrl.core.component import component
from dsrl.core.errors import StageFailed
from dsrl.data.overlap.index import Hit, Items
from dsrl.data.overlap.longest_run import shared
from dsrl.data.overlap.rules import rank, reason
from dsrl.data.sample import Match, Rejected, Sample
from dsrl.data.source import Source
from dsrl.data.task import Contamination, Task
from dsrl.forecast.workload import Load
from dsrl.pipeline.stage import Stage

if TYPE_CHECKING:
    from dsrl.forecast.workload import Expectation, Outlook
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

MANY = 0.1
"""Share of samples from which on one should look."""
SHOWN = 200
"""Characters of the shared words in the detail of a rejection."""


@component("stages.decontaminate")
class Decontaminate(Stage):
    """Holds the input of every sample against every item of the test set and of further sets. What shares text with one
    is taken out, or marked, as the task's policy says."""

    name: ClassVar[str] = "decontaminate"
    outputs = ("samples", "decontaminated")
    published: ClassVar[tuple[str, ...]] = ("policy", "samples", "matched", "dropped", "items", "kinds", "silent")

    contamination: Contamination

    @property
    def inputs(self) -> tuple[str, ...]:
        """Without the test set where contamination isn't checked."""
        return ("samples",) if self.contamination.policy == "keep" else ("samples", "test")

    def expect(self, outlook: "Outlook") -> "Expectation":
        return outlook.expects(Load())

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        found, silent = self._looked(state, context)
        for name, kinds in silent.items():
            context.progress.say(
                f"decontaminate: items of {name} resemble each other too much for the rule{'s' * (len(kinds) > 1)} "
                f"{' and '.join(kinds)}"
            )
        return self._settled(state, found, context, silent)

    def _looked(
        self, state: "PipelineState", context: "Context"
    ) -> tuple[dict[int, list[Match]], dict[str, list[str]]]:
        """Matches by the place of the sample, and rules that say nothing of a set."""
        found: dict[int, list[Match]] = {}
        silent: dict[str, list[str]] = {}
        rules = self.contamination
        for name, source in self._sets(state.task):
            texts = [source.question(row) for row in source.rows()]
            items = Items(texts, rules.ngrams, rules.renamed, rules.reworded)
            if items.silent:
                silent[name] = list(items.silent)
            for hit in items.hits([compared(sample) for sample in state.samples]):
                match = matched(name, hit, state.samples[hit.text].input, texts[hit.item])
                found.setdefault(hit.text, []).append(match)
            for place, match in self._pictured(name, source, texts, state, context):
                found.setdefault(place, []).append(match)
        return found, silent

    def _pictured(
        self, name: str, source: Source, texts: list[str], state: "PipelineState", context: "Context"
    ) -> Iterator[tuple[int, Match]]:
        """Samples with the words and the pictures of an item."""
        shown = [place for place, sample in enumerate(state.samples) if sample.images]
        if not shown or not source.images:
            return
        items = {mark: item for item, mark in enumerate(source.marks(context.gallery(state.task)))}
        for place in shown:
            if (item := items.get(state.samples[place].mark)) is not None:
                yield place, Match(source=name, item=item, kind="same", size=0, share=1.0, text=texts[item])

    def _sets(self, task: Task) -> Iterator[tuple[str, Source]]:
        if self.contamination.policy == "keep":
            return
        if task.test is not None:
            yield "test", task.test
        yield from ((source.path, source) for source in self.contamination.also)

    def _settled(
        self, state: "PipelineState", found: Mapping[int, list[Match]], context: "Context", silent: dict[str, list[str]]
    ) -> "PipelineState":
        """Raises `StageFailed` where nothing is left."""
        marked = [with_matches(sample, found.get(place, ())) for place, sample in enumerate(state.samples)]
        drops = self.contamination.policy == "drop"
        kept = tuple(sample for sample in marked if not (drops and sample.matches))
        rejected = tuple(refusal(sample) for sample in marked if drops and sample.matches)
        if rejected and not kept:
            raise StageFailed(
                f"decontaminate: all {len(rejected)} samples share text with the test set",
                got=f"{rejected[0].reason}: {rejected[0].detail}",
                next_step="was the test set among demos or passages? task.contamination.policy=flag goes on with them",
            )
        self._tell(found, len(state.samples), context)
        return state.add(samples=kept, rejected=rejected, figures=self._figures(state, found, len(kept), silent))

    def _tell(self, found: Mapping[int, list[Match]], samples: int, context: "Context") -> None:
        if not found:
            return
        told = f"decontaminate: {len(found)} of {samples} samples share text with the test set"
        if self.contamination.policy == "flag":
            context.progress.warn(f"{told}; they are trained on (task.contamination.policy=flag)")
        elif len(found) > MANY * samples:
            context.progress.warn(
                f"{told} and are left out: see in the report whether they copy it or are only made like it; "
                "task.contamination.renamed=null and task.contamination.reworded=null take the looser rules out"
            )
        else:
            context.progress.say(f"{told} and are left out")

    def _figures(
        self, state: "PipelineState", found: Mapping[int, list[Match]], kept: int, silent: dict[str, list[str]]
    ) -> dict[str, Any]:
        kinds = Counter(surest(matches).kind for matches in found.values())
        pairs = {(match.source, match.item) for matches in found.values() for match in matches}
        return {
            "policy": self.contamination.policy,
            "samples": len(state.samples),
            "matched": len(found),
            "dropped": len(state.samples) - kept,
            "items": len(pairs),
            "kinds": dict(kinds.most_common()),
            "silent": silent,
            "rows": {"in": len(state.samples), "out": kept},
        }


def compared(sample: Sample) -> str:
    """Nothing of a sample with images: equal words may be asked of different pictures."""
    return "" if sample.images else sample.input


def with_matches(sample: Sample, matches: Sequence[Match]) -> Sample:
    """The same object where nothing changes: there may be a hundred thousand."""
    return sample if sample.matches == tuple(matches) else sample.replace(matches=tuple(matches))


def matched(source: str, hit: Hit, sample: str, item: str) -> Match:
    """The record of a hit."""
    return Match(
        source=source, item=hit.item, kind=hit.kind, size=hit.size, share=round(hit.share, 4), text=shared(sample, item)
    )


def surest(matches: Sequence[Match]) -> Match:
    """The one that leaves least doubt."""
    return min(matches, key=lambda match: (rank(match.kind), -match.share))


def refusal(sample: Sample) -> Rejected:
    """The record of a sample that is taken out."""
    match = surest(sample.matches)
    return Rejected(
        stage="decontaminate",
        reason=reason(match.kind, match.size),
        detail=f"item {match.item} of {match.source}: {match.text[:SHOWN]}",
        input=sample.input,
        images=sample.images,
        answer=sample.answer,
        parent_id=sample.parent_id,
        votes=sample.votes,
        provenance=sample.provenance,
        matches=sample.matches,
    )
