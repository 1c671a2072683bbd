"""Draws and writes the visual tasks' small files in `data`, in the layouts of the official ones: questions and pictures
of our own. By hand, after a change: `python -m tests.cli.tasks.draw`."""

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from dsrl.data.images.columns import MIN_BASE64_LENGTH

DATA = Path(__file__).parent / "data"
SIDE = 56
VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
FOLDERS = (*["images_version_1-4"] * 3, "images_version_5", "images_version_6")
Row = dict[str, Any]


def bars(*heights: int) -> Image.Image:
    """A small bar chart in black and white."""
    picture = Image.new("1", (SIDE, SIDE), 1)
    pen = ImageDraw.Draw(picture)
    for place, height in enumerate(heights):
        left = 3 + place * (SIDE // len(heights))
        pen.rectangle((left, SIDE - 2 - 5 * height, left + 7, SIDE - 2), outline=0, fill=place % 2)
    return picture


def dots(count: int) -> Image.Image:
    """So many dots in rows of five."""
    picture = Image.new("1", (SIDE, SIDE), 1)
    pen = ImageDraw.Draw(picture)
    for place in range(count):
        across, down = 4 + 10 * (place % 5), 4 + 10 * (place // 5)
        pen.ellipse((across, down, across + 6, down + 6), fill=0)
    return picture


def triangle(*words: str) -> Image.Image:
    """A triangle with something written in it."""
    picture = Image.new("1", (SIDE, SIDE), 1)
    pen = ImageDraw.Draw(picture)
    pen.polygon([(4, 50), (50, 50), (20, 6)], outline=0)
    for place, word in enumerate(words):
        pen.text((12, 26 + 11 * place), word, fill=0)
    return picture


def file(picture: Image.Image, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    (picture.convert("L") if form == "JPEG" else picture).save(out, form, optimize=True, quality=20)
    return out.getvalue()


def coded(picture: Image.Image) -> str:
    """With a word on its origin: a cell of fewer characters would be taken for a path."""
    about, out = PngInfo(), io.BytesIO()
    about.add_text("Source", "Drawn for the tests of dsrl, as all others here.")
    picture.save(out, "PNG", optimize=True, pnginfo=about)
    written = base64.b64encode(out.getvalue()).decode()
    assert len(written) >= MIN_BASE64_LENGTH
    return written


def kept(path: str, picture: Image.Image, form: str = "PNG") -> str:
    place = DATA / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(file(picture, form))
    return path


MATHVERSE = (
    ("One base angle of a triangle is 50° and the other one 60°.", "How large is the angle at the top? (  )",
     ("50°", "60°", "70°", "80°"), "C", ("50", "60")),
    ("The legs of a right triangle are 1 and √3.", "How long is the third side? (  )", ("√2", "√3", "2", "1/2"), "C",
     ("1", "r3")),
    ("A circle around the triangle has the radius 3.", "What is the area of the circle?", (), "9π", ("r=3",)),
    ("A line through the triangle has slope 2 and meets the y axis at 1.", "Give the equation of the line.", (),
     "y=2x+1", ("y=2x+1",)),
)  # fmt: skip


def mathverse() -> list[Row]:
    return [row for number, problem in enumerate(MATHVERSE, 1) for row in versions(number, *problem)]


def versions(
    number: int, told: str, asked: str, choices: Sequence[str], answer: str, drawn: Sequence[str]
) -> Iterator[Row]:
    """The five versions of a problem: less and less in words, more and more in the picture."""
    listed = "\nChoices:\n" + "\n".join(f"{letter}:{one}" for letter, one in zip("ABCD", choices, strict=False))
    whole = asked + (listed if choices else "")
    words = (f"{told} {told} {whole}", f"{told} {whole}", whole, whole, "")
    form = "the letter of the right option" if choices else "the final value"
    for place, (version, folder, text) in enumerate(zip(VERSIONS, FOLDERS, words, strict=True)):
        shown = f"Question: {text}" if text else "The question is in the picture."
        yield {
            "sample_index": str(5 * (number - 1) + place + 1),
            "problem_index": str(number),
            "problem_version": version,
            "question": text,
            "image": kept(f"{folder}/image_{number}.png", triangle(*drawn)),
            "answer": answer,
            "question_type": "multi-choice" if choices else "free-form",
            "metadata": {"split": "testmini", "source": "ours", "subject": "Plane Geometry", "subfield": "Angle"},
            "query_wo": f"Answer with {form}.\n{shown}",
            "query_cot": f"Reason first, and give {form} at the end.\n{shown}",
            "question_for_eval": f"{told} {whole}",
        }


def mathvision() -> Iterator[Row]:
    """Open questions, options in the table, options in the question, options in the picture alone."""
    for number in range(20):
        count, kind = number + 2, number % 4
        options = [str(count + step) for step in (-1, 0, 1, 2, 3)]
        listed = "Choices: " + " ".join(f"({letter}) {one}" for letter, one in zip("ABCDE", options, strict=True))
        asked = "Which letter stands below the tallest bar?" if kind == 3 else f"How many dots are there, {number}?"
        yield {
            "index": str(number + 1),
            "image": coded(bars(3, 9, number % 5) if kind == 3 else dots(count)),
            "question": f"{asked}\n<image1>" + (f"\n{listed}" if kind == 2 else ""),
            "choices": str([[], options, options, list("ABCDE")][kind]),
            "answer": str(count) if kind == 0 else "B",
            "category": ("counting", "logic")[kind == 3],
        }


def mathvista() -> dict[str, Row]:
    rows = (row for number in range(5) for row in group(number))
    return {str(number): {**row, "pid": str(number)} for number, row in enumerate(rows, 1)}


def group(number: int) -> Iterator[Row]:
    """One record of each type of answer."""
    picture = kept(f"images/{number + 1}.jpg", bars(number + 1, 4, 2), "JPEG")
    first = number + 1
    relation = ["larger than", "equal to", "smaller than"]
    yield record(picture, "The first bar is ____ the second.", relation[(first < 4) + (first <= 4)], choices=relation)
    yield record(picture, "How tall is the first bar?", str(first), kind="integer", unit="cm")
    mean = (first + 6) / 3
    yield record(picture, "What is the mean height of the bars?", f"{mean:.2f}", kind="float", precision=2)
    yield record(picture, "How tall are the bars?", f"[{first}, 4, 2]", kind="list")


def record(
    picture: str, question: str, answer: str, *, choices: list[str] | None = None, kind: str = "text",
    precision: int | None = None, unit: str | None = None,
) -> Row:  # fmt: skip
    return {
        "question": question,
        "image": picture,
        "choices": choices,
        "unit": unit,
        "precision": precision,
        "answer": answer,
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": kind,
        "metadata": {"split": "testmini", "source": "ours", "task": "figure question answering", "category": "general"},
    }


def wemath() -> Iterator[Row]:
    """Problems of two steps: each step by itself, and both at once."""
    for number in range(20):
        problem, step = number // 3 + 1, number % 3
        key = ("2steps_1", "2steps_2", "2steps_multi")[step]
        side = problem + 2
        asked, right = (
            (f"How long is each side of square {number}?", side),
            (f"A square has sides of {side} cm. What is its area, {number}?", side * side),
            (f"What is the area of square {number} in the picture?", side * side),
        )[step]
        texts = [str(right - 1), str(right), str(right + 2), "No correct answer"]
        yield {
            "ID": f"2steps_{problem}",
            "split": "testmini",
            "knowledge concept": ("Sides of a square", "Area of a square", "Area of a square")[step],
            "question": f"{asked} (  )",
            "option": ";".join(f"{letter}. {text}" for letter, text in zip("ABCD", texts, strict=True)) + " ",
            "answer": "B",
            "image_path": kept(f"2steps/image/{problem}.png", dots(side)),
            "key": key,
            "question number": number + 1,
            "knowledge concept description": "A square has four equal sides.",
        }


def dynamath() -> Iterator[Row]:
    """Four questions in five variants, all first variants first."""
    for index in range(20):
        question, variant = index % 4, index // 4 + 1
        share = (variant + 1) / 7
        made = (
            (f"What share of the 7 bars is filled, if {variant + 1} are?", f"{share:.3f}", "float"),
            (f"Is {variant} the number of dots? choices: (A) yes (B) there are more (C) there are fewer", "A",
             "multiple choice"),
            (f"Is the number of dots, {variant}, even or odd?", ("even", "odd")[variant % 2], "text"),
            (f"How many dots are there in {variant} such pictures?", str(variant * variant), "float"),
        )[question]  # fmt: skip
        yield {
            "index": str(index + 1),
            "image": coded(bars(*range(1, variant + 2)) if question == 0 else dots(variant)),
            "question": made[0],
            "answer": made[1],
            "answer_type": made[2],
            "subject": ("arithmetic", "statistics")[question % 2],
            "knowledge_level": "elementary school",
            "qid": str(question + 1),
            "varid": str(variant),
        }


def geo3k() -> Iterator[Row]:
    for number in range(20):
        angle, kind = 21 + 2 * number, number % 3
        asked, answer = (
            (f"Find the angle x, if the other two are {angle}° and 60°.", str(120 - angle)),
            (f"A leg is {number + 2}, as long as the other. Find the length of x.", f"{number + 2}\\sqrt{{2}}"),
            (f"Half of {angle} is x. Find x.", str(angle / 2)),
        )[kind]
        texts = [answer, f"{number + 100}", f"{number + 200}", f"{number + 300}"]
        yield {
            "images": [{"bytes": file(triangle(str(angle), "x")), "path": None}],
            "problem": f"<image>{asked}",
            "answer": answer,
            "id": number,
            "choices": texts,
            "ground_truth": "A",
        }


def mmk12() -> Iterator[Row]:
    for number in range(20):
        count = number % 9 + 3
        asked, answer = (
            ("As shown in the figure, how many dots are there?", str(count)),
            (f"As shown in the figure, one of {count} equal slices of a circle is cut off. How large is its angle?",
             f"{360 / count:g}°" if 360 % count == 0 else f"\\frac{{360}}{{{count}}}^\\circ"),
        )[number % 2]  # fmt: skip
        yield {
            "id": f"k12-{number}",
            "images": [{"bytes": file(dots(count)), "path": None}],
            "problem": f"<image>{asked} ({number})",
            "answer": answer,
        }


def write() -> None:
    """All files; the pictures beside them where the official ones have them there."""
    for name, rows in (("mathverse", mathverse()), ("mathvista", mathvista()), ("wemath", list(wemath()))):
        (DATA / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    for name, table in (("mathvision", list(mathvision())), ("dynamath", list(dynamath()))):
        with (DATA / f"{name}.tsv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(table[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    for name, table in (("geo3k", list(geo3k())), ("mmk12", list(mmk12()))):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), DATA / f"{name}.parquet", compression="zstd")


if __name__ == "__main__":
    write()
