"""Mistakes about teachers that are seen before any work starts, as the command line reports them."""

from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from tests.composed import built

USUAL = ("task=quickstart", "model=hf", "model.path=.")
SERVER = ("teacher=server", "teacher.model=m", "teacher.base_url=http://localhost:1/v1")
LONG = "so " * 4000


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        built(*USUAL, *overrides)
    return str(caught.value)


def test_a_missing_key_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert "ANTHROPIC_API_KEY is not set" in refused("teacher=anthropic")


def test_a_missing_resource_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_RESOURCE", raising=False)
    assert "AZURE_OPENAI_RESOURCE" in refused("teacher=azure", "teacher.model=m")


def test_batches_need_an_endpoint_that_has_them() -> None:
    assert "takes_batch is false" in refused(*SERVER, "teacher.batch=true")
    assert built(*USUAL, *SERVER, "teacher.batch=true", "teacher.takes_batch=true")


SMALL = ("teacher.context=1200", "teacher.max_tokens=100")


def test_an_instruction_over_the_context_is_named() -> None:
    said = refused(*SERVER, *SMALL, f"task.instruction='{LONG}'")
    assert "task.instruction is too long for m" in said
    assert "1200 tokens" in said


def test_a_demo_over_the_context_is_named() -> None:
    demo = f"[{{input: '{LONG}', output: '#### 1'}}]"
    assert "longest of task.demos is too long" in refused(*SERVER, *SMALL, f"task.demos={demo}")


def test_a_bad_line_of_the_price_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("model,input,cached_input,output,date\nm,cheap,,1,2026-11-20\n")
    said = refused(*SERVER, f"prices={path}")
    assert f"{path}, line 2" in said
    assert "m,cheap,,1,2026-11-20" in said


def test_a_budget_can_be_kept_with_the_prices_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("model,input,cached_input,output,date\nm,3,,7,2026-11-20\n")
    assert "the price of m is unknown" in refused(*SERVER, "budget_usd=1")
    pipeline, _ = built(*USUAL, *SERVER, "budget_usd=1", f"prices={path}")
    assert pipeline["generate"].teacher.price.output == 7.0  # type: ignore[attr-defined]


def test_prices_are_not_part_of_any_key(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("model,input,cached_input,output,date\nm,3,,7,2026-11-20\n")
    with_file, _ = built(*USUAL, *SERVER, f"prices={path}")
    without, _ = built(*USUAL, *SERVER)
    assert {name: stage.parts() for name, stage in with_file.items()} == {
        name: stage.parts() for name, stage in without.items()
    }


def test_an_edited_repair_prompt_is_another_stage() -> None:
    pipeline, _ = built(*USUAL, *SERVER)
    for name in ("retrieve", "generate", "rewrite"):
        assert {"repair", "object", "tags"} <= pipeline[name].parts()["prompts"].keys()
