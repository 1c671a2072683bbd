"""Two trainings on one machine kept apart. veRL loads this module in each of its processes, because
`VERL_USE_EXTERNAL_MODULES` names it.

veRL 0.9.1 hands new weights to vLLM through a socket in /tmp that is named after the number of the Ray job, which is 1
in every new Ray: of two trainings that run at the same time, one would get the other's weights.
"""

import os

from ray.runtime_context import RuntimeContext

from dsrl.stages.train.verl.resources import NAME

_number = RuntimeContext.get_job_id


def number(self: RuntimeContext) -> str:
    """The job's number and the training's own word; veRL uses it in names only."""
    return f"{_number(self)}{os.environ.get(NAME, '')}"


RuntimeContext.get_job_id = number
