"""Training rows for veRL, with real tokenizers. veRL itself isn't needed."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import processors

from dsrl.core.errors import UserError
from dsrl.data.model import Model
from dsrl.models import huggingface
from dsrl.stages.train.job import TrainingJob, TrainingRow
from dsrl.stages.train.verl.rows import (
    RAW_TEMPLATES,
    choose_chat_template,
    encode_prompts,
    longest_prompt,
    write_table,
)
from tests.e2e.tiny import tiny_model
from tests.stages.train.verl.test_worker import job

pytestmark = pytest.mark.e2e
ROWS = tuple(
    TrainingRow(id=f"s{number}", prompt="1 2 " * number, answer="1", origin="harder", parent="s0", passage="p")
    for number in range(1, 4)
)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return tiny_model(tmp_path / "model")


def job_for(folder: Path, model: Model) -> TrainingJob:
    return replace(job(folder), model=model)


def test_a_base_model_gets_plain_text(model: Model, tmp_path: Path) -> None:
    tokenizer, made = huggingface.load_tokenizer(model), job_for(tmp_path, model)
    encoded = encode_prompts(tokenizer, made, ROWS)
    assert choose_chat_template(tokenizer, made, encoded) == RAW_TEMPLATES[0]


def test_a_bos_token_is_kept(model: Model, tmp_path: Path) -> None:
    tokenizer, made = huggingface.load_tokenizer(model), job_for(tmp_path, model)
    tokenizer.add_special_tokens({"bos_token": "#"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="# $A", special_tokens=[("#", tokenizer.convert_tokens_to_ids("#"))]
    )
    encoded = encode_prompts(tokenizer, made, ROWS)
    assert encoded[ROWS[0].prompt][0] == tokenizer.convert_tokens_to_ids("#")
    assert choose_chat_template(tokenizer, made, encoded) == RAW_TEMPLATES[1]


def test_an_instruct_model_keeps_its_own_template(model: Model, tmp_path: Path) -> None:
    tokenizer, made = huggingface.load_tokenizer(model), job_for(tmp_path, replace(model, prompt_format="chat"))
    tokenizer.chat_template = "# {{ messages[0]['content'] }} #"
    assert choose_chat_template(tokenizer, made, encode_prompts(tokenizer, made, ROWS)) is None


def test_tokens_that_differ_from_other_stages_are_refused(model: Model, tmp_path: Path) -> None:
    tokenizer, made = huggingface.load_tokenizer(model), job_for(tmp_path, model)
    with pytest.raises(UserError, match=r"model\.prompt_format"):
        choose_chat_template(tokenizer, made, {"1 2": [4, 4, 4]})


def test_a_prompt_that_is_too_long_is_refused_with_its_sample(model: Model, tmp_path: Path) -> None:
    tokenizer, made = huggingface.load_tokenizer(model), job_for(tmp_path, model)
    encoded = encode_prompts(tokenizer, made, ROWS)
    assert longest_prompt(ROWS, encoded, limit=16, reply=10) == 6
    with pytest.raises(UserError, match=r"sample s3(.|\n)*6 tokens(.|\n)*rl\.max_response_tokens"):
        longest_prompt(ROWS, encoded, limit=16, reply=11)


def test_rows_contain_their_provenance(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.parquet", ROWS, "train")
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert rows[1]["prompt"] == [{"role": "user", "content": ROWS[1].prompt}]
    assert rows[1]["reward_model"]["ground_truth"] == "1"
    assert {**rows[1]["extra_info"], "prompt": ""} == {
        "index": 1,
        "split": "train",
        "id": "s2",
        "prompt": "",
        "origin": "harder",
        "parent": "s0",
        "passage": "p",
        "pass_rate": None,
    }
