"""The shipped files: the task's rows and the corpus of passages."""

import hashlib
import json
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from dsrl.core.digest import text_digest
from dsrl.core.resources import home
from dsrl.graders import Number
from dsrl.quickstart.documents import answer_style, story_documents, validation_stories
from dsrl.quickstart.stories import NAMES, NOUNS, parse
from dsrl.quickstart.testset import labelled_digests, write

TASK = home() / "tasks" / "quickstart"
CORPUS = home() / "corpora"
ROWS = {"test": 400, "gold_train": 600, "demos": 3}


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "count"), ROWS.items())
def test_every_row_is_a_story_with_the_right_answer(name: str, count: int) -> None:
    found = rows(TASK / f"{name}.jsonl")
    assert len(found) == count
    for row in found:
        story = parse(row.get("question") or row["input"])
        gold = Number().gold(row.get("answer") or row["output"])
        assert gold == str(story.answer)
        assert row.get("level", len(story.changes)) == len(story.changes)


def test_all_texts_are_distinct() -> None:
    texts = [row.get("question") or row["input"] for name in ROWS for row in rows(TASK / f"{name}.jsonl")]
    assert len(set(map(text_digest, texts))) == len(texts)


def test_test_set_is_balanced_by_level() -> None:
    assert Counter(row["level"] for row in rows(TASK / "test.jsonl")) == dict.fromkeys((1, 2, 3, 4), 100)


def test_documented_command_reproduces_the_shipped_files(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ROWS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (TASK / f"{name}.jsonl").read_bytes()


def test_corpus_excludes_labelled_and_validation_stories() -> None:
    taken = labelled_digests(TASK)
    assert len(taken) == sum(ROWS.values())
    stories = validation_stories(300, 0, taken)
    assert len(taken) == sum(ROWS.values()) + len(stories)
    read = {
        text_digest(one.story.text)
        for one in islice(story_documents(random.Random(0), 0.4, 0.35, frozenset(taken)), 5000)
    }
    assert not read & taken


def test_excluded_story_is_skipped() -> None:
    first, second = islice(story_documents(random.Random(1), 0.4, 0.35, frozenset()), 2)
    taken = frozenset({text_digest(first.story.text)})
    assert next(story_documents(random.Random(1), 0.4, 0.35, taken)).story != first.story
    assert second.story != first.story


def test_documents_are_right_and_styles_have_their_shares() -> None:
    read = list(islice(story_documents(random.Random(0), 0.4, 0.35, frozenset()), 4000))
    shares = {name: count / len(read) for name, count in Counter(answer_style(one.answer) for one in read).items()}
    assert shares == pytest.approx({"worked": 0.4, "bare": 0.35, "prose": 0.25}, abs=0.03)
    grader = Number()
    for one in read:
        grade = grader.grade(one.answer, str(one.story.answer))
        assert grade.correct or (answer_style(one.answer) == "prose" and not grade.format_ok)
        assert grader.correct_anywhere(one.answer, str(one.story.answer))
        assert one.prompt == f"{one.story.text}\n\n{grader.instruction}"


def test_corpus_matches_its_manifest() -> None:
    manifest = json.loads((CORPUS / "everyday.json").read_text(encoding="utf-8"))
    content = (CORPUS / manifest["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest["sha256"]
    assert len(content.splitlines()) == manifest["rows"]
    assert manifest["licence"] == "CC0-1.0"


def test_every_passage_contains_names_and_nouns() -> None:
    passages = rows(CORPUS / "everyday.jsonl")
    assert len({passage["id"] for passage in passages}) == len(passages)
    for passage in passages:
        words = re.findall(r"[A-Za-z]+", passage["text"])
        assert 60 <= len(passage["text"].split()) <= 130, passage["id"]
        assert len({word for word in words if word in NAMES}) >= 2, passage["id"]
        assert len({word.lower() for word in words} & set(NOUNS)) >= 2, passage["id"]
