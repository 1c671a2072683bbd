"""What two texts have in common, to be shown."""

from difflib import SequenceMatcher

from dsrl.data.overlap.tokenize import WORD, plain


def shared(text: str, other: str) -> str:
    """The longest run of words that stands in both, as the first text writes it; empty where they share none."""
    places = list(WORD.finditer(text))
    ours, theirs = [plain(place[0]) for place in places], [plain(word) for word in WORD.findall(other)]
    run = SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
    return text[places[run.a].start() : places[run.a + run.size - 1].end()] if run.size else ""


def parts(text: str, other: str) -> list[tuple[str, bool]]:
    """The whole text in pieces, each with whether its words stand in the other text, in the same order."""
    places = list(WORD.finditer(text))
    ours, theirs = [plain(place[0]) for place in places], [plain(word) for word in WORD.findall(other)]
    pieces: list[tuple[str, bool]] = []
    end = 0
    for run in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        if not run.size:
            continue
        start, stop = places[run.a].start(), places[run.a + run.size - 1].end()
        pieces += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    return [piece for piece in (*pieces, (text[end:], False)) if piece[0]]
