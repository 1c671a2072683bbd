"""What the stages make of the quickstart task without a model, beside their keys: a stage whose results change under
an unchanged key would silently serve old results from people's stores.

`python -m tests.golden.outputs` writes the file anew, after `version` of the changed component was raised.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from dsrl.core.component import component, to_key_value
from dsrl.core.digest import digest
from dsrl.data.sample import Sample
from dsrl.data.task import Contamination
from dsrl.pipeline.context import Context
from dsrl.pipeline.metrics import begin_round
from dsrl.pipeline.runner import Keys, run_stage
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.decontaminate import Decontaminate
from dsrl.stages.generate import Generate, MajorityVote, SelfInstruct, TarGen
from dsrl.stages.retrieve import Embedded, Retrieve
from dsrl.stages.rewrite import Rewrite
from dsrl.stages.select import Easiest, Hardest, Learnable, PaperRanking, RandomChoice
from tests.forecast.small_run import Guess, initial_state, make_context, offline, rate

FILE = Path(__file__).with_name("outputs.json")
RESULTS = ("passages", "samples", "selected", "control", "rejected")


@component("tests.golden.Score")
class TextScore(Stage):
    """Scores samples by the length of their text."""

    name: ClassVar[str] = "score"
    inputs = ("samples",)
    outputs = ("samples", "score")

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        def score(sample: Sample) -> Sample:
            rated = dataclasses.replace(rate(0), num_rollouts=4, num_valid=4, num_correct=len(sample.input) % 5)
            return sample.replace(score=rated)

        return state.add(samples=tuple(map(score, state.samples)))


def pipelines() -> dict[str, dict[str, Stage]]:
    """The method's stages in all variants that need no model."""
    teacher = offline()
    verify = (MajorityVote(teacher=teacher, votes=5),)
    begin: dict[str, Stage] = {
        "retrieve": Retrieve(retriever=Embedded(corpora=("everyday",)), teacher=teacher, num_passages=12),
        "generate": Generate(teacher=teacher, n=12, verify=verify),
        "probe": Guess(),
        "rewrite": Rewrite(teacher=teacher, verify=verify),
        "score": TextScore(),
        "decontaminate": Decontaminate(contamination=Contamination()),
    }
    strategies = (PaperRanking, Learnable, Easiest, Hardest, RandomChoice)
    generators = (SelfInstruct(teacher=teacher, n=8, verify=verify), TarGen(teacher=teacher, n=8, verify=verify))
    return {
        **{type(made).__name__: {"retrieve": begin["retrieve"], "generate": made} for made in generators},
        **{strategy.__name__: {**begin, "select": strategy(m=6, n=12)} for strategy in strategies},
    }


def stage_outputs(folder: Path) -> dict[str, dict[str, str]]:
    """Pipeline and stage -> the stage's key and a digest of its results."""
    context = make_context(folder)
    found = {}
    try:
        for name, pipeline in pipelines().items():
            state = initial_state()
            keys = Keys(state)
            begin_round(context, 1)
            for stage_name, stage in pipeline.items():
                key = stage.key(keys.parents(stage))
                state = run_stage(stage_name, stage, state, keys, context)
                results = [getattr(state, output) for output in RESULTS if output in {*stage.outputs, "rejected"}]
                found[f"{name}.{stage_name}"] = {"key": key, "outputs": digest(to_key_value(results))}
    finally:
        context.close()
    return found


def find_faults(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Stages with other results under the same key, and stages that aren't in the file as they are now."""
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    changed = [name for name, stage in found.items() if known.get(name) != stage]
    silent = [name for name in changed if known.get(name, {}).get("key") == found[name]["key"]]
    if silent:
        return [
            f"{', '.join(silent)}: other results under an unchanged key. Raise `version` of the changed component, say "
            "so in CHANGELOG.md, and run python -m tests.golden.keys and python -m tests.golden.outputs"
        ]
    return [f"{', '.join(changed)}: new keys. Run python -m tests.golden.outputs"] if changed else []


def main() -> None:
    with TemporaryDirectory() as folder:
        FILE.write_text(json.dumps(stage_outputs(Path(folder)), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
