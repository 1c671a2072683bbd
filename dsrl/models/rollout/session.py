"""An engine kept up while a stage asks it several times."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dsrl.data.model import Rollout

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import Study


def standing(rollout: Rollout, study: "Study", context: "Context") -> AbstractContextManager[Rollout]:
    """The engine itself, where nothing has to be kept up."""
    keep = getattr(rollout, "standing", None)
    return nullcontext(rollout) if keep is None else keep(study.base, context)
