"""Searches the real corpora of CRAFT (github.com/ziegler-ingo/CRAFT)."""

import io
import os
from pathlib import Path

import pytest

from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import Embedded, Ingest

DATA = Path(os.environ.get("DSRL_TEST_DATA", "nowhere"))

pytestmark = pytest.mark.skipif(
    not (DATA / "craft").is_dir(), reason="the CRAFT files aren't there: set DSRL_TEST_DATA to the folder of craft/"
)


@pytest.mark.parametrize(
    ("keyword", "file"),
    [
        ("spinal anesthesia complications", "medqa"),
        ("transcription of DNA into RNA", "bioqa"),
        ("washing your hands to stay healthy", "csqa"),
        ("banana bread with chocolate", "recipegen"),
    ],
)
def test_the_best_hit_is_from_the_corpus_of_its_subject(keyword: str, file: str, tmp_path: Path) -> None:
    retriever = Embedded(corpora=(str(DATA / "craft"),), ingest=Ingest(field="Text"))
    retriever.check()
    best = retriever.open(tmp_path, Progress(io.StringIO())).search(keyword, 3)
    assert best[0].source.startswith(f"craft/{file}.jsonl:")
