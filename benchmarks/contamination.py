"""Recall and false positives of the overlap rules on planted test items, and their speed.

    python benchmarks/contamination.py planted --data FOLDER   # 50 verbatim, 50 renamed, 50 paraphrased in 5,000
    python benchmarks/contamination.py speed --data FOLDER     # 100,000 rows against the test set and each other

`--data` holds gsm8k_train.jsonl, whose questions stand for clean samples, and gsm8k_test.jsonl. Renamed: every name and
number is another one, and half of the time he becomes she. Paraphrased, by rule: other words where a small thesaurus
has some, clauses turned round, the question first; names and numbers stay. Prints Markdown. `--show` lists what was
found among the clean samples, and what was planted and not found.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dsrl.data.overlap.index import KINDS, Overlap, OverlapIndex
from dsrl.data.overlap.near_duplicates import NearDuplicates

PLANTED, SAMPLES, ROWS = 50, 5000, 100_000
_NAMES = """
    Aiko Alistair Bogdan Bronwen Chidi Conchita Dmitri Eilidh Farouk Giulia Hamza Ingrid Jarek Kwame Leilani Matthias
    Ngozi Oluwaseun Priyanka Quentin Ragnhild Siobhan Tomasz Ulrika Vikram Wanjiru Xiomara Yevgenia Zoltan
"""
_SPELLED = "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty"
NAMES, SPELLED = tuple(_NAMES.split()), tuple(_SPELLED.split())
SWAPPED = {"he": "she", "she": "he", "his": "her", "him": "her", "her": "his", "himself": "herself", "He": "She"}
SWAPPED |= {"She": "He", "His": "Her", "Her": "His", "herself": "himself"}
THESAURUS = {
    "how many": "what number of", "how much money": "what amount of money", "how much": "what amount",
    "in total": "altogether", "altogether": "in all", "each day": "daily", "every day": "daily", "per day": "a day",
    "each": "every", "buys": "purchases", "bought": "purchased", "buy": "purchase", "sells": "parts with",
    "gives": "hands over", "gave": "handed over", "wants to": "would like to", "needs to": "has to",
    "makes": "produces", "make": "produce", "made": "produced", "costs": "is priced at", "cost": "was priced at",
    "spends": "pays out", "spent": "paid out", "has": "owns", "had": "owned", "gets": "receives", "got": "received",
    "takes": "requires", "starts": "begins", "started": "began", "more than": "above", "fewer than": "below",
    "less than": "below", "friends": "pals", "children": "kids", "kids": "children", "house": "home", "store": "shop",
    "shop": "store", "money": "cash", "job": "position", "car": "vehicle", "big": "large", "small": "little",
    "whole": "entire", "twice as": "two times as", "half of": "50% of", "all of": "every one of", "left": "remaining",
    "if": "provided that", "when": "at the time that", "then": "after that", "and": "as well as",
    "for": "in exchange for", "because": "since", "but": "however", "also": "in addition", "week": "seven days",
    "year": "twelve months", "hour": "sixty minutes",
}  # fmt: skip
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
THERE = re.compile(r"\b(" + "|".join(sorted(THESAURUS, key=len, reverse=True)) + r")\b", re.IGNORECASE)


def questions(path: Path) -> list[str]:
    return [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()]


class Renamer:
    """Replace names and numbers in a question. What a name is, is learned from questions that aren't searched."""

    def __init__(self, others: list[str]) -> None:
        self.common = {word for text in others for word in WORD.findall(text) if word.islower()}

    def __call__(self, text: str, rng: random.Random) -> str:
        names: dict[str, str] = {}
        free = rng.sample(NAMES, len(NAMES))
        swap = rng.random() < 0.5

        def word(match: re.Match[str]) -> str:
            found, possessive, _ = match[0].partition("'s") if match[0].endswith("'s") else (match[0], "", "")
            if found.lower() in SPELLED:
                return rng.choice(SPELLED)
            if swap and found in SWAPPED:
                return SWAPPED[found]
            if found[0].isupper() and len(found) > 1 and found.lower() not in self.common:
                return names.setdefault(found, free[len(names) % len(free)]) + possessive
            return match[0]

        return re.sub(r"\d+", lambda match: number(match[0], rng), WORD.sub(word, text))


def number(digits: str, rng: random.Random) -> str:
    """Another number of the same magnitude."""
    low = 10 ** (len(digits) - 1)
    return str(
        rng.choice(
            [value for value in range(max(2, low), max(10, 10 * low), max(1, low // 10)) if str(value) != digits]
        )
    )


def paraphrased(text: str, rng: random.Random) -> str:
    """Replace words by the thesaurus, reorder `if` clauses, put the question first."""
    sentences = [turned(sentence) for sentence in re.split(r"(?<=[.?!])\s+", text)]
    *told, asked = sentences
    text = " ".join([asked, *told] if rng.random() < 0.5 else sentences)
    return THERE.sub(lambda match: THESAURUS[match[0].lower()] if rng.random() < 0.8 else match[0], text)


def turned(sentence: str) -> str:
    """`If a, b?` -> `b, if a?`."""
    clause = re.fullmatch(r"(If|When|After) ([^,]+), (.+)([.?!])", sentence)
    return f"{clause[3].capitalize()}, {clause[1].lower()} {clause[2]}{clause[4]}" if clause else sentence


def planted(data: Path, show: bool) -> None:
    """Count planted items that are found."""
    train, test = questions(data / "gsm8k_train.jsonl"), questions(data / "gsm8k_test.jsonl")
    rng = random.Random(0)
    rename = Renamer(train)
    ways: dict[str, Callable[[str], str]] = {
        "verbatim": lambda text: text,
        "renamed": lambda text: rename(text, rng),
        "paraphrased": lambda text: paraphrased(text, rng),
    }
    items = iter(rng.sample(range(len(test)), PLANTED * len(ways)))
    rows = [("clean", -1, text) for text in rng.sample(train, SAMPLES)]
    rows += [
        (way, item, made(test[item])) for way, made in ways.items() for item in [next(items) for _ in range(PLANTED)]
    ]
    rng.shuffle(rows)
    started = time.monotonic()
    hits = list(OverlapIndex(test).find_overlaps([text for _, _, text in rows]))
    seconds = time.monotonic() - started
    right: dict[int, Overlap] = {hit.text: hit for hit in hits if hit.item == rows[hit.text][1]}
    print(f"\n{len(rows):,} samples, {len(test):,} test items, {seconds:.1f} s\n")
    print(f"| planted | rows | found | {' | '.join(KINDS)} |\n|---|---|---|{'---|' * len(KINDS)}")
    for way in ways:
        kinds = Counter(hit.kind for text, hit in right.items() if rows[text][0] == way)
        print(f"| {way} | {PLANTED} | {sum(kinds.values())} | {' | '.join(str(kinds[kind]) for kind in KINDS)} |")
    false = {hit.text: hit for hit in hits if rows[hit.text][0] == "clean"}
    kinds = Counter(hit.kind for hit in false.values())
    print(f"| (clean) | {SAMPLES} | {len(false)} | {' | '.join(str(kinds[kind]) for kind in KINDS)} |")
    for text, hit in false.items() if show else ():
        print(f"\nclean, {hit.kind} {hit.share:.2f}\n  sample  {rows[text][2]}\n  item    {test[hit.item]}")
    for text, (way, item, sample) in enumerate(rows) if show else ():
        if way != "clean" and text not in right:
            print(f"\n{way}, not found\n  sample  {sample}\n  item    {test[item]}")


def varied(texts: list[str], count: int, rng: random.Random) -> list[str]:
    """`count` different texts made by mixing sentences of fewer texts."""
    sentences = [sentence for text in texts for sentence in re.split(r"(?<=[.?!])\s+", text)]
    return [" ".join(rng.choices(sentences, k=4)) for _ in range(count)]


def count_matched(items: list[str], texts: list[str]) -> int:
    return len({overlap.text for overlap in OverlapIndex(items).find_overlaps(texts)})


def speed(data: Path, show: bool) -> None:  # noqa: ARG001
    """Time the rules on many rows."""
    train, test = questions(data / "gsm8k_train.jsonl"), questions(data / "gsm8k_test.jsonl")
    texts = varied(train, ROWS, random.Random(0))
    words = sum(len(text.split()) for text in texts)
    print(f"\n{len(texts):,} rows, {words:,} words\n\n| what | seconds | of CPU | found |\n|---|---|---|---|")
    timed(f"against {len(test):,} test items", lambda: count_matched(test, texts))
    near = NearDuplicates(0.8)
    timed("near-duplicates among them", lambda: sum(not near.add_if_new(text) for text in texts))


def timed(what: str, work: Callable[[], int]) -> None:
    started, used = time.monotonic(), time.process_time()
    found = work()
    print(f"| {what} | {time.monotonic() - started:.1f} | {time.process_time() - used:.1f} | {found} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["planted", "speed"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    {"planted": planted, "speed": speed}[given.part](given.data, given.show)


if __name__ == "__main__":
    main()
