from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Usage
from dsrl.llm import Price
from dsrl.llm.price import price_warning, read_prices, with_prices

HEAD = "model,input,cached_input,output,date\n"


def test_prices_are_read_with_and_without_those_of_caches_and_batches(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("\ufeff" + HEAD + "gpt-4o,2.5,1.25,10,2026-11-20\nm , 1, ,2,2026-11-20\n", encoding="utf-8")
    assert read_prices(path) == {
        "gpt-4o": Price(input=2.5, cached_input=1.25, output=10.0, date="2026-11-20"),
        "m": Price(input=1.0, output=2.0, date="2026-11-20"),
    }
    path.write_text("model,input,cached_input,output,batch,date\nm,1,,2,0.5,2026-11-20\n")
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert [read_prices(path)["m"].cost(usage, batch) for batch in (False, True)] == [3.0, 1.5]


BAD = [
    (HEAD + "m,1,,2,2026-11-20\nm,one,,2,2026-11-20\n", ["line 3", "m,one,,2,2026-11-20", "numbers"]),
    (HEAD + "m,-1,,2,2026-11-20\n", ["line 2", "m,-1,,2"]),
    (HEAD + "m,nan,,2,2026-11-20\n", ["line 2", "nan"]),
    (HEAD + "m,1,,inf,2026-11-20\n", ["line 2", "inf", "finite"]),
    (HEAD + "m,1,,2,yesterday\n", ["line 2", "yesterday", "2026-11-20"]),
    (HEAD + "m,1,2,2026-11-20\n", ["line 2", "as many fields"]),
    (HEAD + "m,1,,2,2026-11-20,more\n", ["line 2", "more"]),
    (HEAD + ",1,,2,2026-11-20\n", ["line 2", "begins with a model"]),
    ("model,price\nm,1\n", ["line 1", "model,price", HEAD.strip()]),
    ("", ["line 1"]),
    (HEAD + 'm,"1\n', ["can't be read"]),
    ("\x00", ["line 1"]),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_bad_line_is_named_with_what_was_found(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_prices(path)
    assert all(word in str(caught.value) for word in ["prices.csv", *words])


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be read\n.*none\.csv"):
        read_prices(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="can't be read"):
        read_prices(tmp_path / "binary.csv")


def test_the_file_goes_before_what_the_config_says() -> None:
    endpoint = {"_target_": "dsrl.llm.Endpoint", "model": "m", "price": None}
    config = {"teacher": endpoint, "pipeline": {"generate": {"verify": [{"teacher": endpoint}], "model": {"x": 1}}}}
    found = with_prices(config, {"m": Price(input=1.0, output=2.0, date="2026-11-20")})
    expected = {
        "_target_": "dsrl.llm.Price",
        "input": 1.0,
        "cached_input": None,
        "output": 2.0,
        "date": "2026-11-20",
        "batch": 1.0,
    }
    assert found["teacher"]["price"] == found["pipeline"]["generate"]["verify"][0]["teacher"]["price"] == expected
    assert endpoint["price"] is None
    assert with_prices(config, {"other": Price(input=1.0, output=2.0, date="2026-11-20")}) == config


def test_a_file_of_other_models_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HEAD + "m,1,,2,2026-11-20\nn,1,,2,2026-11-20\n")
    asked = {"generate": {"verify": [{"teacher": {"model": "a", "price": None}}], "model": {"x": 1}}}
    assert price_warning(asked, str(path)) == f"prices={path} has no price for a, only for m, n"
    assert price_warning({**asked, "score": {"model": "m", "price": None}}, str(path)) is None
    assert price_warning({"rank": {}}, str(path)) is None
    assert price_warning(asked, None) is None
