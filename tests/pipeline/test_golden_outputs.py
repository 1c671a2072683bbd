from pathlib import Path

from tests.golden import outputs


def test_results_change_only_with_their_keys(tmp_path: Path) -> None:
    assert outputs.find_faults(outputs.stage_outputs(tmp_path)) == []


def test_a_change_that_keeps_the_key_is_named() -> None:
    known = outputs.json.loads(outputs.FILE.read_text())
    changed = {**known, "PaperRanking.generate": {**known["PaperRanking.generate"], "outputs": "other"}}
    (fault,) = outputs.find_faults(changed)
    assert fault.startswith("PaperRanking.generate: other results")
    moved = {**known, "PaperRanking.generate": {"key": "other", "outputs": "other"}}
    (fault,) = outputs.find_faults(moved)
    assert fault.startswith("PaperRanking.generate: new keys")
