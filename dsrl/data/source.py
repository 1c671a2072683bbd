"""Labelled data sets that the user names: a local file, a folder saved by `datasets`, or a hub id."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from dsrl.core.component import Component, Many, component, record
from dsrl.core.digest import content_key as text_and_images_digest
from dsrl.core.digest import digest, file_digest, folder_digest, text_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.fields import cell_text, fill_template, has_field, lookup, template_columns
from dsrl.data.images import Gallery, UnusableImage
from dsrl.data.images.columns import ImageColumns, image_file_digests
from dsrl.data.images.prompt import resolve_placeholders
from dsrl.data.multiple_choice import (
    ChoiceOptions,
    arrange_options,
    find_gold_option,
    has_unknown_layout,
    parse_options,
)
from dsrl.data.official_formats import read_official
from dsrl.data.readers import SUFFIXES, Rows, read_hub_dataset, read_rows, read_saved_dataset
from dsrl.data.sample import Image, content_key
from dsrl.graders import Grader

__all__ = ["Item", "Source", "read_rows", "template_columns"]

UNREADABLE_ANSWER = "gold answers can't be read by this task's answer kind"
NO_OPTION = "gold answers name none of the options"
UNREADABLE_OPTIONS = "rows have options that are neither texts nor labelled texts"
NO_QUESTION = "rows have no question"
WRONG_PLACEHOLDERS = "rows have another number of images than of <image> in their question"
MAX_FILES_CHECKED = 1000


@record
class Item:
    """One question with its gold answer."""

    input: str
    """Contains `<image>` once for each image."""
    answer: str
    images: Many[Image] = ()
    subject: str | None = None
    """Value of the column `Source.subject`, by which metrics are split."""
    group: str | None = None
    """Value of the column `Source.group`; items of a group are variants of each other."""
    data: dict[str, Any] = Field(default_factory=dict)
    """The columns named by `Source.keep`."""

    @property
    def content_key(self) -> str:
        """Equal for items with the same words and images."""
        return content_key(self.input, self.images)

    @property
    def id(self) -> str:
        """Key of the item in difficulty ratings: its text, and the files of its images."""
        if not self.images:
            return digest(self.input)
        return text_and_images_digest(self.input, [image.digest for image in self.images])


@component("data.source")
class Source(Component):
    """A labelled data set and which of its columns are question and answer."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"path", "revision", "image_folder", "size", "licence"})
    """Location and facts about the data: `fingerprint` hashes the data themselves."""

    path: str = ""
    """A JSONL, JSON, CSV, TSV or Parquet file, a `DatasetDict.save_to_disk` folder, or a Hugging Face data set id;
    empty: no data set."""
    config: str | None = None
    """Configuration name of the hub data set."""
    revision: str | None = None
    """Commit of the hub data set."""
    split: str = "test"
    format: Literal["dynamath", "logiqa", "mathvision", "mathvista", "pubmedqa", "spider"] | None = None
    """File format of an official release that is not a plain table, or has other columns than its hub version."""
    input: str = "Input"
    """Column of the question; `a.b` is field b of column a."""
    output: str = "Output"
    """Column of the gold answer or solution."""
    template: str | None = None
    """Builds the question from several columns, `{context} {question}`, instead of `input`."""
    options: str | Many[str] | None = None
    """Column with the options as a list, an object or a text (`A. 4; B. 5`), or one column per option. They are written
    below the question, one per line; the gold column may then hold a letter, a name, or an option's text. Options that
    are bare letters belong to the image and are not written."""
    option_seed: int | None = None
    """Shuffle the options by this seed and the question; None: keep their order. For data in which the right one always
    comes first."""
    index_from: int | None = None
    """The gold column holds the number of the right option, counted from here."""
    images: str | Many[str] | None = None
    """Column or columns with the question's images: a path, bytes, base64, or a list of these; None: no images.
    A question without `<image>` gets one in front for each image; `<image1>` also counts as one."""
    image_folder: str | None = None
    """Folder to which image paths are relative; None: that of the data file."""
    meanings: dict[str, str] = Field(default_factory=dict)
    """Maps values of the gold column to labels: {"0": entailment}."""
    subject: str | None = None
    """Column by which metrics are split."""
    group: str | None = None
    """Column that is equal for variants of one problem: they share a difficulty rating, and accuracy on the worst
    variant is reported."""
    keep: Many[str] = ()
    """Extra columns kept with every item."""
    limit: int | None = Field(default=None, gt=0)
    """Use only the first rows."""
    size: int | None = Field(default=None, gt=0)
    """Known number of rows, for forecasts without network access."""
    licence: str | None = None

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        template_columns(value or "")
        return value

    @property
    def local(self) -> Path | None:
        """The file or folder, if `path` looks like one; it may not exist."""
        path = resource(self.path)
        looks_local = self.path.startswith(("/", "./", "../", "~")) or path.suffix in (*SUFFIXES, ".txt")
        return path if path.exists() or looks_local else None

    @property
    def image_columns(self) -> ImageColumns:
        local = self.local
        data_folder = local.parent if local is not None else None
        return ImageColumns(
            self._image_names, resource(self.image_folder) if self.image_folder is not None else data_folder
        )

    def fingerprint(self) -> str:
        """Digest of the data (content if local, id and revision on the hub) and of how the columns are read."""
        local = self.local
        if local is not None and local.exists():
            content = file_digest(local) if local.is_file() else folder_digest(local, ("*/*", "*"))
        else:
            content = f"{self.path}@{self.revision}"
        image_files = self.images and local is not None and self.image_columns.files(self.rows())
        return digest([content, self.key_fields(), digest(image_file_digests(image_files)) if image_files else None])

    def count(self) -> int | None:
        """Number of rows, if known without network access."""
        local = self.local
        if local is not None and local.exists():
            return len(self.rows())
        return self.size if self.limit is None or self.size is None else min(self.size, self.limit)

    def rows(self) -> Rows:
        """All rows as stored. Raises `UserError` if the data can't be loaded or lack a column."""
        local = self.local
        if local is not None and not local.exists():
            raise UserError(
                f"no such data file: {self.path}",
                got=f"working folder {Path.cwd()}",
                next_step="check the path; tasks/NAME/README.md says where a task's data come from; or run without a "
                'test set: task.test.path=""',
            )
        if local is None:
            rows = read_hub_dataset(self.path, self.config, self.split, self.revision)
        elif local.is_dir():
            rows = read_saved_dataset(local, self.split)
        else:
            rows = read_official(local, self.format) if self.format else read_rows(local)
        if not rows:
            raise UserError(
                f"data set {self.path} is empty",
                got=f"0 rows in split {self.split}",
                next_step='use another data set, or none: task.test.path=""',
            )
        rows = rows[: self.limit]
        self._check_columns(rows)
        return rows

    def load(self, grader: Grader, gallery: Gallery | None = None) -> list[Item]:
        """Questions with canonical gold answers, and with images if there is a `gallery` to store them. Raises
        `UserError` naming the malformed rows."""
        rows = self.rows()
        results = [self.read_item(row, grader) for row in rows]
        items = [item for item in results if isinstance(item, Item)]
        if len(items) == len(rows):
            return self._add_images(items, rows, gallery) if self.images and gallery else items
        fault = next(item for item in results if isinstance(item, str))
        malformed = [number for number, item in enumerate(results, 1) if item == fault]
        raise UserError(
            f"{self.path}: {len(malformed)} of {len(rows)} {fault}",
            got=f"rows {malformed[:5]}, such as {cell_text(lookup(rows[malformed[0] - 1], self.output))[-80:]!r}",
            next_step="check answer.kind and its options, or correct the rows; `dsrl task check` lists them all",
        )

    def read_item(self, row: Mapping[str, Any], grader: Grader) -> Item | str:
        """The item of a row, or what is wrong with the row."""
        question, options = self.question(row), self._options(row)
        if not question.strip():
            return NO_QUESTION
        if self.has_wrong_placeholders(row):
            return WRONG_PLACEHOLDERS
        if isinstance(self.options, str) and has_unknown_layout(lookup(row, self.options)):
            return UNREADABLE_OPTIONS
        if self.options is not None and (options.right is None if options else not grader.open):
            return NO_OPTION
        gold = options.right if options is not None and options.right else self._gold_cell(row)
        question_grader = grader.for_question(question)
        answer = question_grader.gold_cell(gold)
        if answer is None:
            return UNREADABLE_ANSWER
        if (allowed := question_grader.allowed()) and answer not in allowed:
            return NO_OPTION
        subject, group = (cell_text(lookup(row, name)) if name else None for name in (self.subject, self.group))
        data = {name: lookup(row, name) for name in self.keep}
        return Item(input=question, answer=answer, subject=subject, group=group, data=data)

    def read_free_form_item(self, row: Mapping[str, Any], grader: Grader) -> Item | str:
        """A multiple-choice row as an open question whose answer is the right option's text, or what is wrong with the
        row."""
        question, options = self.question_without_options(row), self._options(row)
        if options is None and grader.open:
            return self.read_item(row, grader)
        if not question.strip():
            return NO_QUESTION
        if self.has_wrong_placeholders(row, options=False):
            return WRONG_PLACEHOLDERS
        if options is None or options.right_text is None:
            return NO_OPTION
        answer = grader.for_question(question).gold(options.right_text)
        return UNREADABLE_ANSWER if answer is None else Item(input=question, answer=answer)

    def question(self, row: Mapping[str, Any]) -> str:
        """The question of a row, with its options below it."""
        return self._resolve(row, self._raw_question(row))[0]

    def question_without_options(self, row: Mapping[str, Any]) -> str:
        return self._resolve(row, self._raw_text(row))[0]

    def store_images(self, row: Mapping[str, Any], gallery: Gallery, *, options: bool = True) -> tuple[Image, ...]:
        """Store the images of a row and return them in the order in which its question shows them, with or without its
        options. Raises `UnusableImage`."""
        stored = self.image_columns.store_images(row, gallery)
        text = self._raw_question(row) if options else self._raw_text(row)
        return _in_order(stored, self._resolve(row, text)[1])

    def has_wrong_placeholders(self, row: Mapping[str, Any], *, options: bool = True) -> bool:
        """Whether the question refers to more, fewer or other images than the row has."""
        return self._resolve(row, self._raw_question(row) if options else self._raw_text(row))[1] is None

    def _raw_text(self, row: Mapping[str, Any]) -> str:
        return fill_template(self.template, row) if self.template else cell_text(lookup(row, self.input))

    def _raw_question(self, row: Mapping[str, Any]) -> str:
        """Question and options with the placeholders of the data set."""
        text, options = self._raw_text(row), self._options(row)
        written = options.render() if options is not None else ""
        return f"{text}\n{written}" if written else text

    def _resolve(self, row: Mapping[str, Any], text: str) -> tuple[str, tuple[int, ...] | None]:
        """The text with `<image>` placeholders, and the order in which it shows the row's images; None if they don't
        fit."""
        if not self.images:
            return text, ()
        return resolve_placeholders(text, self._num_images(row)) or (text, None)

    def content_keys(self, gallery: Gallery) -> list[str]:
        """Row by row, the content key that its item or sample would have."""
        rows = self.rows()
        if not self.images:
            return [text_digest(self.question(row)) for row in rows]
        return [
            content_key(self.question(row), () if isinstance(images, UnusableImage) else images)
            for row, images in zip(rows, self.store_all_images(rows, gallery), strict=True)
        ]

    def store_all_images(self, rows: Rows, gallery: Gallery) -> list[tuple[Image, ...] | UnusableImage]:
        """`store_images` for all rows in parallel; a row that fails gives its exception."""
        return [
            images
            if isinstance(images, UnusableImage)
            else _in_order(images, self._resolve(row, self._raw_question(row))[1])
            for row, images in zip(rows, self.image_columns.store_all(rows, gallery), strict=True)
        ]

    def check_images(self) -> None:
        """Look for the image files, or for a sample of `MAX_FILES_CHECKED`. Raises `UserError` if any is missing."""
        files = self.image_columns.files(self.rows()) if self.images and self.local is not None else []
        checked = files[:: len(files) // MAX_FILES_CHECKED + 1]
        if missing := [path for path in checked if not path.is_file()]:
            raise UserError(
                f"{self.path}: {len(missing)} of {len(checked)} image files are missing",
                got=f"no file {missing[0]}",
                next_step="set the folder to which image paths are relative: task.test.image_folder=FOLDER",
            )

    def _add_images(self, items: list[Item], rows: Rows, gallery: Gallery) -> list[Item]:
        stored = self.store_all_images(rows, gallery)
        if faults := {number: images for number, images in enumerate(stored, 1) if isinstance(images, UnusableImage)}:
            first, fault = next(iter(faults.items()))
            raise UserError(
                f"{self.path}: {len(faults)} of {len(rows)} rows have images that can't be used",
                got=f"rows {list(faults)[:5]}; row {first}: {fault.reason}: {fault}",
                next_step="repair or remove them",
            )
        pairs = zip(items, stored, strict=True)
        return [dataclasses.replace(item, images=images) for item, images in pairs]  # type: ignore[arg-type]

    @property
    def _image_names(self) -> tuple[str, ...]:
        return (self.images,) if isinstance(self.images, str) else self.images or ()

    def _num_images(self, row: Mapping[str, Any]) -> int:
        """Count image cells without touching the file system: this is called several times per row."""
        return len(ImageColumns(self._image_names, None).cells(row))

    def _gold(self, row: Mapping[str, Any]) -> str:
        return cell_text(self._gold_cell(row))

    def _gold_cell(self, row: Mapping[str, Any]) -> Any:
        """The gold cell as it stands in the data, an array too, with `meanings` applied."""
        cell = lookup(row, self.output)
        if not self.meanings:
            return cell
        if isinstance(cell, (list, tuple)) and cell:
            return [self.meanings.get(cell_text(item), item) for item in cell]
        text = cell_text(cell)
        return self.meanings.get(text, self.meanings.get(text.lower(), cell) if isinstance(cell, bool) else cell)

    def _options(self, row: Mapping[str, Any]) -> ChoiceOptions | None:
        if self.options is None:
            return None
        if isinstance(self.options, str):
            named = parse_options(lookup(row, self.options))
        else:
            named = {name: cell_text(lookup(row, name)) for name in self.options}
        named = {name: option for name, option in named.items() if option.strip()}
        if not named:
            return None
        right = self.output if self.output in named else find_gold_option(named, self._gold(row), self.index_from)
        return arrange_options(named, right, self.question_without_options(row), self.option_seed)

    def _check_columns(self, rows: Rows) -> None:
        options = (self.options,) if isinstance(self.options, str) else self.options or ()
        columns_by_key = {
            "input": template_columns(self.template) if self.template else {self.input},
            "output": (self.output,),
            "options": options,
            "images": self._image_names,
            "subject": (self.subject,) if self.subject else (),
            "group": (self.group,) if self.group else (),
            "keep": self.keep,
        }
        if any(has_field(row, name) for row in rows for name in self._image_names):
            columns_by_key["images"] = ()  # rows without an image may lack the column
        keys = {column: key for key, columns in columns_by_key.items() for column in columns}
        for number, row in enumerate(rows, 1):
            if missing := sorted(name for name in keys if not has_field(row, name)):
                settings = dict.fromkeys(f"task.test.{keys[name]}=..." for name in missing)
                raise UserError(
                    f"{self.path} has no column {', '.join(missing)}" + (f" in row {number}" if number > 1 else ""),
                    got=f"columns {', '.join(sorted(map(str, row)))}",
                    next_step=f"name the right ones: {' '.join(settings)}",
                )


def _in_order(images: tuple[Image, ...], order: tuple[int, ...] | None) -> tuple[Image, ...]:
    return images if order is None else tuple(images[position] for position in order)
