import sqlite3
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.graders import Sql
from dsrl.graders.database import has_outer_order

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
WIDE = " ".join(["SELECT count(*) FROM t", *(f", t t{i}" for i in range(40))])
TABLE = "CREATE TABLE t (x); INSERT INTO t VALUES (1), (2);"


@pytest.mark.parametrize("query", [ENDLESS, WIDE], ids=["endless", "wide"])
def test_a_query_that_never_ends_is_undecided_and_the_next_one_is_served(query: str) -> None:
    grader = Sql(timeout=0.5).for_question(TABLE)
    assert grader.compare(query, "SELECT 1") == "undecided"
    assert grader.compare("SELECT max(x) FROM t", "SELECT 2") == "right"


@pytest.mark.parametrize(
    ("query", "in_order"),
    [
        ("SELECT x FROM t ORDER BY x", True),
        ("SELECT x FROM t order\n  by x LIMIT 1", True),
        ("SELECT x FROM t UNION SELECT y FROM u ORDER BY 1", True),
        ("SELECT x FROM (SELECT x FROM t ORDER BY x)", False),
        ("SELECT row_number() OVER (ORDER BY x) FROM t", False),
        ("SELECT 'order by' FROM t", False),
        ('SELECT "order by" FROM t', False),
        ("SELECT x FROM t -- ORDER BY x", False),
        ("SELECT x /* ORDER BY x */ FROM t", False),
        ("SELECT x FROM t", False),
    ],
)
def test_only_an_order_of_the_outermost_select_counts(query: str, in_order: bool) -> None:
    assert has_outer_order(query) is in_order


def test_a_question_may_name_a_file_which_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    place = tmp_path / "shop" / "shop.sqlite"
    with sqlite3.connect(place) as connection:
        connection.executescript(TABLE)
    connection.close()
    before = place.read_bytes()
    grader = Sql(databases=str(tmp_path)).for_question("How many?\ndatabase: shop")
    assert grader.compare("SELECT count(*) FROM t", "SELECT 2") == "right"
    assert grader.compare("DELETE FROM t", "SELECT 2") == "wrong"
    assert place.read_bytes() == before
    assert grader.gold("SELECT x FROM t") == "SELECT x FROM t"
    assert grader.gold("SELECT y FROM t") is None


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no database shop"):
        Sql(databases=str(tmp_path)).for_question("database: shop").same("SELECT 1", "SELECT 1")


@pytest.mark.parametrize(
    "script",
    [
        "ATTACH 'x.db' AS x;",
        "CREATE TABLE t (x); PRAGMA user_version = 5;",
        "CREATE TABLE t (x; ",
        "CREATE VIRTUAL TABLE t USING fts5(x);",
    ],
)
def test_tables_that_cannot_be_made_make_no_answer_right(script: str) -> None:
    grader = Sql().for_question(f"CREATE TABLE u (x);\n{script}")
    assert not grader.same("SELECT 1", "SELECT 1")
