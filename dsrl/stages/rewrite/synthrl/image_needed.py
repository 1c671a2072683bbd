"""Whether a variant still needs its picture: does the target come to the answer as often without it?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.data.images.prompt import strip_placeholders
from dsrl.data.model import Model
from dsrl.data.sample import Rate
from dsrl.models.rollout.protocols import Asked, PassCounter
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.rewrite.synthrl.pass_band import Outcome, shown

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("verify.image_needed")
class ImageNeeded(Component):
    """Refuses a candidate that tells in words what its picture shows: the target, shown the words alone, is right
    nearly as often as with the picture. Questions without pictures pass unlooked at."""

    counter: PassCounter
    model: Model | None = None
    """Who is asked; None: the model that is to be trained."""
    share: float = Field(default=0.5, ge=0, lt=1)
    """Right replies without the pictures may be at most this share of those with them."""

    def verify_all(self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context") -> list[Outcome]:
        pictured = [one for one in candidates if one.images]
        seen = self._counted(pictured, state, context)
        words = [Asked(strip_placeholders(one.input), one.answer or "") for one in pictured]
        unseeing = self.counter.count(words, state, context, self.model)
        judged = (self._judged(one, rate, without) for (one, rate), without in zip(seen, unseeing, strict=True))
        return [next(judged) if one.images else one for one in candidates]

    def _counted(
        self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context"
    ) -> list[tuple[Candidate, Rate]]:
        """With the counts with pictures: those of an earlier verifier that asked the same model, else made now."""
        asker = self.model or state.base
        assert asker is not None
        known = [one.rate if one.rate and self._whole(one.rate, asker) else None for one in candidates]
        pairs = list(zip(candidates, known, strict=True))
        asked = [Asked(one.input, one.answer or "", one.images, one.drawn) for one, rate in pairs if rate is None]
        made = iter(self.counter.count(asked, state, context, self.model))
        return [(one, rate) if rate else self._looked_at(one, next(made)) for one, rate in pairs]

    def _whole(self, rate: Rate, asker: Model) -> bool:
        return rate.model == asker.fingerprint() and rate.num_valid >= self.counter.rollouts

    def _looked_at(self, candidate: Candidate, rate: Rate) -> tuple[Candidate, Rate]:
        """The target's own replies that were counted now are no longer fresh."""
        if self.model is not None:
            return candidate, rate
        return replace(candidate, rate=rate, drawn=candidate.drawn + rate.num_rollouts), rate

    def _judged(self, counted: Candidate, seeing: Rate, unseeing: Rate) -> Outcome:
        words = f"{shown(seeing)}, without the picture {shown(unseeing)}"
        if min(seeing.num_valid, unseeing.num_valid) < self.counter.rollouts:
            return Refusal("undecided", f"{words}; {self.counter.rollouts} replies are needed", counted)
        if unseeing.num_correct > self.share * seeing.num_correct:
            return Refusal("image not needed", f"{words}; at most {self.share:.0%} of these are wanted", counted)
        return counted.passed(type(self).__name__, words)
