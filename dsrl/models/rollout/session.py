"""An engine kept up while a stage asks it several times."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dsrl.models.rollout.protocols import Rollout

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


def standing(rollout: Rollout, state: "PipelineState", context: "Context") -> AbstractContextManager[Rollout]:
    """The engine itself, where nothing has to be kept up."""
    keep = getattr(rollout, "standing", None)
    return nullcontext(rollout) if keep is None else keep(state.base, context)
