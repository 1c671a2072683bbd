"""Whether a variant still needs its image: does the target reach the answer as often without it?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.data.images.prompt import strip_placeholders
from dsrl.data.model import Model
from dsrl.data.sample import Rate
from dsrl.models.rollout.protocols import PassCounter, Question
from dsrl.stages.generate.candidate import Candidate, Refusal
from dsrl.stages.rewrite.synthrl.pass_band import Outcome, describe_rate

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@component("verify.image_needed")
class ImageNeeded(Component):
    """Refuses a candidate whose words describe what its image shows: given the words alone, the target is correct
    nearly as often as with the image. Questions without images pass untested."""

    counter: PassCounter
    model: Model | None = None
    """The model that answers. None: the one to be trained."""
    share: float = Field(default=0.5, ge=0, lt=1)
    """Correct replies without the images may be at most this share of those with them."""

    def verify_all(self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context") -> list[Outcome]:
        with_images = self._count_with_images([one for one in candidates if one.images], state, context)
        texts = [Question(strip_placeholders(candidate.input), candidate.answer or "") for candidate, _ in with_images]
        text_rates = self.counter.count(texts, state, context, self.model)
        outcomes = (
            self._judge(candidate, rate, text_rate)
            for (candidate, rate), text_rate in zip(with_images, text_rates, strict=True)
        )
        return [next(outcomes) if one.images else one for one in candidates]

    def _count_with_images(
        self, candidates: Sequence[Candidate], state: "PipelineState", context: "Context"
    ) -> list[tuple[Candidate, Rate]]:
        """Each candidate with its pass rate with images: of an earlier verifier that asked the same model, else counted
        now."""
        model = self.model or state.base
        assert model is not None
        fingerprint = model.fingerprint()
        known = [
            rate
            if (rate := one.rate) and rate.model == fingerprint and rate.num_valid >= self.counter.rollouts
            else None
            for one in candidates
        ]
        missing = [one.to_question() for one, rate in zip(candidates, known, strict=True) if rate is None]
        counted = iter(self.counter.count(missing, state, context, self.model))
        results = []
        for candidate, rate in zip(candidates, known, strict=True):
            if rate is None:
                rate = next(counted)
                if self.model is None:  # replies of the target that were counted now are no longer fresh
                    consumed = candidate.num_consumed + rate.num_rollouts
                    candidate = replace(candidate, rate=rate, num_consumed=consumed)
            results.append((candidate, rate))
        return results

    def _judge(self, candidate: Candidate, rate: Rate, text_rate: Rate) -> Outcome:
        detail = f"{describe_rate(rate)}, without the picture {describe_rate(text_rate)}"
        if min(rate.num_valid, text_rate.num_valid) < self.counter.rollouts:
            return Refusal("undecided", f"{detail}; {self.counter.rollouts} replies are needed", candidate)
        if text_rate.num_correct > self.share * rate.num_correct:
            return Refusal("image not needed", f"{detail}; at most {self.share:.0%} of these are wanted", candidate)
        return candidate.accept(type(self).__name__, detail)
