from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Model, Reply


def weights(folder: Path, content: str = "1") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(content)
    return folder


def test_folder_fingerprint_depends_on_content_not_location(tmp_path: Path) -> None:
    one = Model(name="a", path=str(weights(tmp_path / "one")))
    other = Model(name="b", path=str(weights(tmp_path / "other")))
    assert one.fingerprint() == other.fingerprint()
    (tmp_path / "one" / "README.md").write_text("more")
    assert one.fingerprint() == other.fingerprint()
    weights(tmp_path / "one", "2")
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("change", [{"prompt_format": "raw"}, {"max_length": 17}, {"dtype": "float32"}])
def test_prompt_format_length_and_dtype_are_in_the_fingerprint(change: dict[str, Any], tmp_path: Path) -> None:
    model = Model(name="a", path=str(weights(tmp_path / "one")))
    assert replace(model, **change).fingerprint() != model.fingerprint()


def test_hub_model_fingerprint_is_id_and_revision() -> None:
    model = Model(name="a", path="some/model")
    assert model.locate() is model
    assert model.fingerprint() != replace(model, revision="abc").fingerprint()
    assert model.fingerprint() == replace(model, name="b").fingerprint()


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "~/nowhere"])
def test_missing_local_folder_is_rejected(path: str) -> None:
    with pytest.raises(UserError, match="no such folder") as caught:
        Model(name="a", path=path).locate()
    assert path in str(caught.value)


class Recipe:
    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0

    def folder(self) -> Path:
        self.count += 1
        return weights(self.place)


def test_prepared_model_is_created_on_first_use(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path / "made")
    model = Model(name="a", prepare=recipe)
    assert recipe.count == 0
    located = model.locate()
    assert (recipe.count, located.path, located.prepare) == (1, str(tmp_path / "made"), None)
    assert model.fingerprint() == located.fingerprint()


def test_reply_cut_at_the_limit_is_truncated() -> None:
    assert Reply(text="x", finish_reason="length").truncated
    assert not Reply(text="x", finish_reason="stop").truncated
