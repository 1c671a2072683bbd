"""Properties of each kind that hold for all answers, not only for the cases in the tables."""

import math
import random
import sys
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dsrl.graders import Choice, Text
from dsrl.graders.database import same_rows
from dsrl.graders.latex import settle
from dsrl.graders.normalize import clean
from dsrl.graders.quantities import read_quantity
from tests.graders.kinds import kind

NUMBER, TEXT, MATH = kind("number"), kind("text"), kind("math")
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
ZEROS = [ord(character) for character in map(chr, range(sys.maxunicode)) if unicodedata.decimal(character, None) == 0]
CELLS = st.one_of(
    st.none(), st.integers(-(10**9), 10**9), st.floats(-1e300, 1e300), st.sampled_from(["a", "1", b"1", 10**12, 0.1])
)
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=30)


@given(st.integers(-(10**12), 10**12), st.sampled_from(ZEROS), st.sampled_from(DASHES))
def test_a_number_has_the_same_value_in_all_digits_and_dashes(value: int, zero: int, dash: str) -> None:
    spelled = "".join(chr(zero + int(digit)) if digit.isdigit() else dash for digit in str(value))
    assert NUMBER.read(spelled) == str(value)


@given(st.integers(1, 10**6), st.text(alphabet="abcdefg ()<>#:;!=+*/\u221a\u2248\u2013", min_size=1, max_size=12))
def test_what_stands_before_a_number_never_makes_another_number_of_it(value: int, before: str) -> None:
    quantity = read_quantity(f"{before}{value}")
    assert quantity is None or abs(quantity.value) == value
    if quantity is not None and quantity.value < 0:
        assert before.rstrip()[-1] in "\u2013-"


@given(st.decimals(min_value="1e-40", max_value="1e40", places=None, allow_nan=False), st.integers(1, 9))
def test_numbers_that_differ_in_the_third_digit_are_never_the_same(value: object, digit: int) -> None:
    gold = Fraction(str(value))
    assume(gold)
    reply = gold * (1 + Fraction(digit, 1000))
    for first, second in ((gold, reply), (reply, gold)):
        outcome = settle(f"{float(first):.12e}", f"{float(second):.12e}")
        assert outcome is False


@given(st.integers(-(10**18), 10**18), st.integers(1, 10**6))
def test_whole_numbers_must_be_equal(value: int, difference: int) -> None:
    assert settle(str(value + difference), str(value)) is False
    assert NUMBER.same(str(value), str(value)) is True


@pytest.mark.parametrize("infinite", ["inf", "-inf", "nan", "Infinity", "9e999"])
@given(gold=st.integers(-(10**9), 10**9))
def test_no_infinity_equals_a_finite_number(infinite: str, gold: int) -> None:
    assert not NUMBER.grade(f"#### {infinite}", str(gold)).correct
    assert not same_rows([(gold,)], [(float(infinite),)], False, 1e-6) or not math.isfinite(gold)


@given(ROWS, st.randoms(use_true_random=False))
def test_any_permutation_of_rows_is_equal_to_them(rows: list[tuple[object, object]], rng: random.Random) -> None:
    shuffled = rng.sample(rows, len(rows))
    assert same_rows(rows, shuffled, False, 1e-6)
    noisy = [tuple(c * (1 + rng.uniform(-1e-7, 1e-7)) if isinstance(c, float) else c for c in row) for row in shuffled]
    assert same_rows(rows, noisy, False, 1e-6)


@given(ROWS, st.integers(0, 29))
def test_rows_with_another_number_are_not_equal(rows: list[tuple[object, object]], place: int) -> None:
    assume(rows)
    place %= len(rows)
    other = [*rows[:place], (rows[place][0], "another"), *rows[place + 1 :]]
    assert not same_rows(rows, other, False, 1e-6)


@given(st.sampled_from("+-#<>=%^/"), st.sampled_from(["C", "O", "AB", "p"]), st.sampled_from(["", "5", "0.05"]))
def test_a_sign_beside_a_letter_or_digit_is_part_of_the_answer(sign: str, word: str, digits: str) -> None:
    assume(digits or sign in "+-#")
    assert not TEXT.same(f"{word}{sign}{digits}", f"{word}{digits}")
    assert TEXT.same(f"{word}{sign}{digits}", f"{word}{sign}{digits}.")


@given(st.text(max_size=20))
def test_every_text_equals_itself_in_all_unicode_forms(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    for form in ("NFC", "NFD", "NFKC"):
        same = unicodedata.normalize(form, text)
        assume(clean(same) == clean(text))
        assert TEXT.same(text, same)


@given(
    st.sampled_from("ABCD"),
    st.sampled_from("ABCD"),
    st.sampled_from(["{}", "({})", "[{}]", "**{}**", "{}.", "{}:", "\\text{{{}}}", "Option {}", "The answer is {}"]),
)
def test_a_wrapped_letter_is_that_letter_and_two_are_none(letter: str, other: str, wrapping: str) -> None:
    wrapped = wrapping.format(letter)
    assert Choice().read(wrapped) == letter
    if other != letter:
        assert Choice().read(f"{wrapped} or {other}") is None
        assert Choice().read(f"{wrapped}, {other}") is None


UNITS = ["cm", "m", "km", "hours", "minutes", "dollars", "cents", "cm^2", "kg", "apples"]


@settings(deadline=None)
@given(st.integers(1, 999), st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_units_must_agree_where_both_have_one(value: int, unit: str, other: str) -> None:
    first, second = f"{value}\\text{{ {unit}}}", f"{value}\\text{{ {other}}}"
    assert settle(first, second) is (unit == other)
    assert settle(first, str(value)) is True
    assert settle(str(value), second) is True
    assert settle(str(value + 1), second) is False


@given(st.text(alphabet="0123456789.,-/$ \\{}frac^_xe+()%\u221a\u03c0\u00b2\u2013text:", max_size=40))
def test_no_expression_breaks_the_reader(text: str) -> None:
    answer = MATH.read(text)
    if answer is not None:
        assert settle(answer, answer) is True
        settle(answer, "5")


def test_short_texts_are_read_as_they_stand() -> None:
    assert isinstance(TEXT, Text)
    assert TEXT.read(" Beyonce\u0301 ") == "Beyonc\u00e9"
