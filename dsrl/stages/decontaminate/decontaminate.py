"""Find samples that reveal test items. This runs after everything that is paid for, so another test set costs no
replies."""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dsrl.core.component import component
from dsrl.core.errors import StageFailed
from dsrl.data.images import UnusableImage
from dsrl.data.images.prompt import strip_placeholders
from dsrl.data.images.store import looks_same
from dsrl.data.overlap.index import Overlap, OverlapIndex, longest_shared_run, rejection_reason, rule_rank
from dsrl.data.sample import Match, Rejected, Sample, content_key
from dsrl.data.source import Source
from dsrl.data.task import Contamination, Task
from dsrl.forecast.workload import Workload
from dsrl.pipeline.stage import Stage

if TYPE_CHECKING:
    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

WARN_ABOVE = 0.1
"""Share of matched samples above which dropping them is a warning."""
MAX_DETAIL = 200
"""Characters of the shared words in a rejection's detail."""

Matches = dict[int, list[Match]]
"""Position of a sample -> the test items it reveals."""


@component("stages.decontaminate")
class Decontaminate(Stage):
    """Compares the input of every sample with every item of the test set and of further sets, and drops or flags those
    that overlap, by the task's policy."""

    name: ClassVar[str] = "decontaminate"
    outputs = ("samples", "decontaminated")
    published: ClassVar[tuple[str, ...]] = ("policy", "samples", "matched", "dropped", "items", "kinds", "silent")

    contamination: Contamination

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("samples",) if self.contamination.policy == "keep" else ("samples", "test")

    def forecast(self, before: "ForecastState") -> "StageForecast":
        return before.forecast(Workload())

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":
        """Raises `StageFailed` if no sample is left."""
        matches, disabled = self._find_matches(state, context)
        for source, kinds in disabled.items():
            rules = f"rule{'s' * (len(kinds) > 1)} {' and '.join(kinds)}"
            context.progress.say(
                f"decontaminate: {rules} disabled for {source}: its items resemble each other too much"
            )
        samples = [with_matches(sample, matches.get(number, ())) for number, sample in enumerate(state.samples)]
        drop = self.contamination.policy == "drop"
        kept = tuple(sample for sample in samples if not (drop and sample.matches))
        rejected = tuple(reject(sample) for sample in samples if drop and sample.matches)
        if rejected and not kept:
            raise StageFailed(
                f"decontaminate: all {len(rejected)} samples share text with the test set",
                got=f"{rejected[0].reason}: {rejected[0].detail}",
                next_step="check that the test set is not among demos or passages; to continue with these samples: "
                "task.contamination.policy=flag",
            )
        self._report(len(matches), len(samples), context)
        figures = self._figures(matches, len(samples), len(kept), disabled)
        return state.add(samples=kept, rejected=rejected, figures=figures)

    def _find_matches(self, state: "PipelineState", context: "Context") -> tuple[Matches, dict[str, list[str]]]:
        """Matches of each sample, and the rules disabled for each data set."""
        matches: Matches = {}
        disabled: dict[str, list[str]] = {}
        settings = self.contamination
        # Equal words may be asked about different images: samples with images are compared by `_image_matches` alone.
        texts = ["" if sample.images else sample.input for sample in state.samples]
        for name, source in self._sources(state.task):
            items = [source.question(row) for row in source.rows()]
            index = OverlapIndex(items, settings.ngrams, settings.renamed, settings.reworded)
            if index.disabled_rules:
                disabled[name] = list(index.disabled_rules)
            for overlap in index.find_overlaps(texts):
                match = to_match(name, overlap, texts[overlap.text], items[overlap.item])
                matches.setdefault(overlap.text, []).append(match)
            for number, match in self._image_matches(name, source, items, state, context):
                matches.setdefault(number, []).append(match)
        return matches, disabled

    def _image_matches(
        self, name: str, source: Source, items: list[str], state: "PipelineState", context: "Context"
    ) -> Iterator[tuple[int, Match]]:
        """Samples with images whose words overlap an item's, and whose images look the same as the item's."""
        samples = {number: sample for number, sample in enumerate(state.samples) if sample.images}
        if not samples or not source.images:
            return
        gallery = context.gallery(state.task)
        stored = source.store_all_images(source.rows(), gallery)
        item_images = [() if isinstance(images, UnusableImage) else images for images in stored]
        keys = map(content_key, items, item_images)
        by_key = {key: item for item, key in enumerate(keys)}
        same = {number: item for number in samples if (item := by_key.get(samples[number].content_key)) is not None}
        for number, item in same.items():
            yield number, Match(source=name, item=item, kind="same", size=0, share=1.0, text=items[item])
        thumbnail = functools.cache(gallery.store.thumbnail)
        words = [strip_placeholders(text) for text in items]
        index = OverlapIndex(words, self.contamination.ngrams, self.contamination.renamed, self.contamination.reworded)
        numbers = list(samples)
        for overlap in index.find_overlaps([strip_placeholders(samples[number].input) for number in numbers]):
            number, item = numbers[overlap.text], overlap.item
            ours, theirs = samples[number].images, item_images[item]
            if same.get(number) == item or len(ours) != len(theirs):
                continue
            if all(looks_same(thumbnail(one), thumbnail(other)) for one, other in zip(ours, theirs, strict=True)):
                yield number, to_match(name, overlap, samples[number].input, items[item])

    def _sources(self, task: Task) -> Iterator[tuple[str, Source]]:
        if self.contamination.policy == "keep":
            return
        if task.test is not None:
            yield "test", task.test
        yield from ((source.path, source) for source in self.contamination.also)

    def _report(self, num_matched: int, num_samples: int, context: "Context") -> None:
        if not num_matched:
            return
        summary = f"decontaminate: {num_matched} of {num_samples} samples share text with the test set"
        if self.contamination.policy == "flag":
            context.progress.warn(f"{summary}; they stay in the training data (task.contamination.policy=flag)")
        elif num_matched > WARN_ABOVE * num_samples:
            context.progress.warn(
                f"{summary} and are dropped: check in the report whether they copy it or only resemble it; "
                "task.contamination.renamed=null and task.contamination.reworded=null turn the looser rules off"
            )
        else:
            context.progress.say(f"{summary} and are dropped")

    def _figures(
        self, matches: Matches, num_samples: int, num_kept: int, disabled: dict[str, list[str]]
    ) -> dict[str, Any]:
        kinds = Counter(most_certain(found).kind for found in matches.values())
        items = {(match.source, match.item) for found in matches.values() for match in found}
        return {
            "policy": self.contamination.policy,
            "samples": num_samples,
            "matched": len(matches),
            "dropped": num_samples - num_kept,
            "items": len(items),
            "kinds": dict(kinds.most_common()),
            "silent": disabled,
            "rows": {"in": num_samples, "out": num_kept},
        }


def with_matches(sample: Sample, matches: Sequence[Match]) -> Sample:
    """The same object if nothing changes: there may be 100,000."""
    return sample if sample.matches == tuple(matches) else sample.replace(matches=tuple(matches))


def to_match(source: str, overlap: Overlap, sample: str, item: str) -> Match:
    return Match(
        source=source,
        item=overlap.item,
        kind=overlap.kind,
        size=overlap.size,
        share=round(overlap.share, 4),
        text=longest_shared_run(sample, item),
    )


def most_certain(matches: Sequence[Match]) -> Match:
    return min(matches, key=lambda match: (rule_rank(match.kind), -match.share))


def reject(sample: Sample) -> Rejected:
    match = most_certain(sample.matches)
    return Rejected(
        stage="decontaminate",
        reason=rejection_reason(match.kind, match.size),
        detail=f"item {match.item} of {match.source}: {match.text[:MAX_DETAIL]}",
        input=sample.input,
        images=sample.images,
        answer=sample.answer,
        parent_id=sample.parent_id,
        votes=sample.votes,
        provenance=sample.provenance,
        matches=sample.matches,
    )
