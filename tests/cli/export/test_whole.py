"""SynthRL with pictures through the real loop and a real store, and what report, trace, export and gc make of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from dsrl.core.component import component
from dsrl.data.images import Prompt, prompt_text
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.source import Source
from dsrl.llm import Endpoint
from dsrl.main import run_command
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.state import PipelineState
from dsrl.stages.decontaminate import Decontaminate
from dsrl.stages.report import Report
from dsrl.stages.rewrite import HarderVariants, PassBand, QualityJudge
from dsrl.stages.score import PassCount
from dsrl.stages.seeds import Seeds
from dsrl.stages.select import Augment
from tests.llm.server import Json, serve
from tests.pictured import CONFIG, ROLLOUTS, TASK, shapes
from tests.stages.report.test_thumbnails import page_data
from tests.toys import context

HARDER = "Count twice, halve it, and say how many discs there are."


class Named(Model):
    def fingerprint(self) -> str:
        return self.name


@component("tests.test_whole.Toy")
class Toy(Rollout):
    """Always right on seeds, every second time on variants."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset()

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        return [[self.reply(prompt_text(prompt), number) for number in range(count)] for prompt in prompts]

    def reply(self, prompt: str, number: int) -> Reply:
        right = HARDER not in prompt or number % 2 == 0
        return Reply(text=f"I see them.\n#### {1 if right else 9}", finish_reason="stop")


def teacher(body: Json, choice: int) -> str:
    parts = body["messages"][-1]["content"]
    assert any(part["type"] == "image_url" for part in parts), "writer and judge see the picture"
    words = "".join(part.get("text", "") for part in parts)
    judged = "# Rewritten question" in words
    return json.dumps({"score": 9, "reason": "two steps"} if judged else {"question": f"<image>\n{HARDER}"})


def ran(folder: Path) -> tuple[Path, PipelineState]:
    (folder / "seen.png").write_bytes(shapes(0))
    rows = [{"question": f"How many discs are there, {name}?", "answer": "1", "picture": "seen.png"} for name in "ab"]
    (folder / "gold.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    gold = Source(path=str(folder / "gold.jsonl"), input="question", output="answer", images="picture", split="train")
    count = PassCount(rollout=Toy(), rollouts=ROLLOUTS, spare=0)
    where = context(folder)
    with serve(answer=teacher) as script:
        endpoint = Endpoint(model="writer-1", base_url=script.url, concurrency=2)
        verify = (QualityJudge(teacher=endpoint), PassBand(counter=count, min_correct=1))
        stages = {
            "seeds": Seeds(source=gold, drop_test_items=False),
            "score": count,
            "rewrite": HarderVariants(
                teacher=endpoint, counter=count, min_correct=ROLLOUTS, attempts=2, min_yield=0.0, verify=verify
            ),
            "decontaminate": Decontaminate(contamination=TASK.contamination),
            "select": Augment(n=2),
            "report": Report(),
        }
        state = run_stages(stages, PipelineState(task=TASK, base=Named(name="target", path="m")), where)
        where.close()
    (where.run_dir / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "store": str(where.store.root)}))
    (where.run_dir / "run.json").write_text(json.dumps({"folder": str(folder)}))
    return where.run_dir, state


def test_pictures_reach_the_page_the_trace_and_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSRL_CACHE", str(tmp_path / "cache"))
    place, state = ran(tmp_path)
    first, second, variant = state.samples
    assert (variant.origin, variant.parent_id, variant.images) == ("harder", first.id, first.images)
    store = f"store={tmp_path / 'store'}"
    rows = {row["id"]: row for row in page_data((place / "report.html").read_text())["rows"]}
    exchanges = rows[variant.id]["exchanges"]
    assert [one["title"] for one in exchanges] == ["Generation", "Further request"]
    assert [reply.get("right", False) for reply in rows[variant.id]["rollouts"]] == [True, True, False, False]
    assert len({str(row["images"]) for row in rows.values()}) == 1
    metrics = json.loads((place / "metrics.json").read_text())
    assert metrics["stages"]["rewrite"]["funnel"][-1] == ["PassBand", 1]
    assert metrics["replies"]["variants"]["right_lines"] == 2
    assert run_command(["trace", variant.id, store]) == 0
    told = capsys.readouterr().out
    assert f"image 1   {tmp_path / 'store' / 'images' / variant.images[0].path} (96 x 64)" in told
    assert "[image 1]" in told
    assert run_command(["export", str(place), f"out={tmp_path / 'out'}", "splits=train,rejected"]) == 0
    assert "3 train, 2 rejected, with 1 different images" in capsys.readouterr().out
    assert run_command(["gc", store, "days=0.0001"]) == 0
    assert "would remove 0 images" in capsys.readouterr().out
    assert second.score is not None
