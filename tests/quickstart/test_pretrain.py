"""The base model trained for a few steps; the quickstart's end-to-end test trains it fully."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.data.model import Model
from dsrl.quickstart import Pretrain
from dsrl.quickstart.documents import story_prompt
from dsrl.quickstart.stories import GAINS, LOSSES, NAMES, NOUNS, Change, Story, parse
from dsrl.quickstart.testset import labelled_digests

OPEN = {"min_worked": 0.0, "min_gap": -1.0, "min_accuracy": 0.0, "max_accuracy": 1.0}
SHORT = Pretrain(steps=6, batch=4, hidden=32, layers=1, first_look=4, look_every=1, last_look=5, **OPEN)
HOPELESS = Pretrain(steps=6, batch=4, hidden=32, layers=1, first_look=1, look_every=1, last_look=2)


def test_recipe_keys_are_distinct(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Pretrain().key() == Pretrain(seed=0).key()
    assert len({recipe.key() for recipe in (Pretrain(), Pretrain(seed=1), Pretrain(prompt_loss=0.0), SHORT)}) == 4


def test_command_line_has_every_recipe_field() -> None:
    command = [sys.executable, "-m", "dsrl.quickstart.pretrain", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=home()).stdout
    assert all(argument.partition("=")[0] in shown for argument in Pretrain().arguments())


def test_recipe_does_not_import_torch() -> None:
    code = "import sys, dsrl.quickstart; dsrl.quickstart.Pretrain().key(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=home())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSRL_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = SHORT.folder()
        began = folder.stat().st_mtime_ns
        assert SHORT.folder() == folder
        assert folder.stat().st_mtime_ns == began
    return folder


@pytest.mark.e2e
def test_folder_is_a_hugging_face_model(trained: Path) -> None:
    from dsrl.models.huggingface import encode_prompt, load_model, load_tokenizer

    model = Model(name="quickstart", path=str(trained), dtype="float32")
    tokenizer, weights = load_tokenizer(model), load_model(model)
    assert weights.config.model_type == "llama"
    assert weights.config.vocab_size == len(tokenizer) < 700
    assert weights.generation_config.eos_token_id == tokenizer.eos_token_id
    assert (trained / "model.safetensors").is_file()
    assert not list(trained.parent.glob("*.draft"))
    asked = encode_prompt(tokenizer, "Hi.", "chat")
    assert tokenizer.decode(asked) == "<|user|>Hi.<|assistant|>"


@pytest.mark.e2e
def test_story_words_are_single_tokens_and_any_text_round_trips(trained: Path) -> None:
    from dsrl.models.huggingface import load_tokenizer

    tokenizer = load_tokenizer(Model(name="quickstart", path=str(trained)))
    changes = tuple(Change(form, 12) for form in GAINS + LOSSES)
    for name, noun in zip(NAMES, NOUNS[: len(NAMES)], strict=True):
        text = story_prompt(Story(name, noun, 99, changes))
        assert len(tokenizer.tokenize(text)) == len(text.split()) + 1  # the empty line
    for noun in NOUNS:
        assert len(tokenizer.tokenize(f"Ada has 7 {noun}. How many {noun} now?")) == 8
    for text in ("Zürich: 1234 trombones, 東京!\t\n", "3+4=7, 7+4=11 #### 11", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.e2e
def test_training_digests_exclude_labelled_stories(trained: Path) -> None:
    read = (trained / "pretraining_digests.txt").read_text().split()
    facts = json.loads((trained / "pretraining.json").read_text())
    assert len(read) == facts["stories"] == SHORT.batch * facts["steps"]
    assert not set(read) & labelled_digests(home() / "tasks" / "quickstart")
    assert facts["recipe"]["hidden"] == SHORT.hidden
    validation = facts["validation"]
    assert validation["stories"] == 300 == sum(validation["stories_by_number_right"])
    assert sum(validation["style_share"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.e2e
def test_failed_validation_is_reported_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSRL_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"(?s)exit code 1.*after 2 steps.*below 0\.7") as failure:
        HOPELESS.folder()
    assert "python -m dsrl.quickstart.pretrain" in str(failure.value)
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


@pytest.mark.e2e
def test_loss_weights_of_prompts_and_answers() -> None:
    from dsrl.quickstart.documents import StoryDocument
    from dsrl.quickstart.tokens import story_tokenizer, user_turn
    from dsrl.quickstart.training import encode_stories

    tokenizer = story_tokenizer(256)
    story = parse("Mia has 7 stamps. Mia gets 4 more. How many stamps now?")
    short, long = StoryDocument(story, "#### 11"), StoryDocument(story, story.solution)
    ids, weights = encode_stories(tokenizer, [short, long], 0.5)
    asked = len(tokenizer(user_turn(story_prompt(story)))["input_ids"])
    assert ids.shape == weights.shape == (2, asked + 8)
    assert weights[:, :asked].eq(0.5).all()
    assert weights[0, asked:].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert tokenizer.decode(ids[1][weights[1] == 1]) == "7+4=11 #### 11<|end|>"
