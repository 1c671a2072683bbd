"""Labelled data sets that the user names: a local file, a folder saved by `datasets`, or a hub id."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from dsrl.core.component import Component, Many, component, record
from dsrl.core.digest import content_mark, digest, file_digest, folder_digest, text_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.fields import columns, filled, has, lookup, text
from dsrl.data.images import Gallery, Unfit, marked
from dsrl.data.images.columns import Columns
from dsrl.data.images.digest_cache import known_digests
from dsrl.data.images.prompt import unnumbered
from dsrl.data.multiple_choice import Options, named_options, right_name, shown
from dsrl.data.readers import SUFFIXES, hub_rows, read_rows, saved_rows
from dsrl.data.rows import Rows
from dsrl.data.sample import Image

if TYPE_CHECKING:
    from dsrl.graders import Grader

__all__ = ["Item", "Source", "columns", "read_rows"]

UNREAD = "gold answers can't be read by this task's answer kind"
NO_OPTION = "gold answers name none of the options"
NO_QUESTION = "rows have no question"
PLACEHOLDERS = "rows have another number of images than of <image> in their question"
LOOKED_FOR = 1000
"""Image files of a data set that are looked for before work starts."""


@record
class Item:
    """One question with its gold answer."""

    input: str
    """Holds `<image>` as often as there are images."""
    answer: str
    images: Many[Image] = ()
    subject: str | None = None
    """What the figures are split by: the row's `Source.subject`."""
    group: str | None = None
    """Items of the same group are siblings: the row's `Source.group`."""
    data: dict[str, Any] = Field(default_factory=dict)
    """The row's columns that `Source.keep` names."""

    @property
    def mark(self) -> str:
        """Equal for items of the same words and pictures."""
        return content_mark(self.input, [image.digest for image in self.images])

    @property
    def id(self) -> str:
        """By which ratings know an item: its words as they stand, and its pictures."""
        return self.mark if self.images else digest(self.input)


@component("data.source")
class Source(Component):
    """A labelled data set and which of its columns are question and answer."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"path", "revision", "image_folder", "size", "licence"})
    """Where the data are and what is known about them: `fingerprint` hashes the data themselves."""

    path: str = ""
    """A JSONL, JSON, CSV, TSV or Parquet file, a `DatasetDict.save_to_disk` folder, or a Hugging Face data set id;
    empty: there is none."""
    config: str | None = None
    """Name of the hub data set's configuration."""
    revision: str | None = None
    """Commit of the hub data set."""
    split: str = "test"
    format: Literal["dynamath", "logiqa", "mathvision", "mathvista", "pubmedqa", "spider"] | None = None
    """Layout of a local file that is no plain table, or has other columns than the hub, as an official release has
    it."""
    input: str = "Input"
    """Column of the question; `a.b` is field b of column a."""
    output: str = "Output"
    """Column of the gold answer or solution."""
    template: str | None = None
    """Builds the question from several columns: `{context} {question}`; takes the place of `input`."""
    options: str | Many[str] | None = None
    """Column that holds the options as a list, an object or a text (`A. 4; B. 5`), or the columns that hold one each.
    They are written below the question, one to a line; the gold column may then hold a letter, a name, or an option's
    text. Options that are mere letters stand in the picture and aren't written."""
    option_seed: int | None = None
    """Options are shown in an order drawn by this seed and the question; None: as they stand. For data in which the
    right one always comes first."""
    index_from: int | None = None
    """The gold column holds the number of the right option, counted from here."""
    images: str | Many[str] | None = None
    """Column of the question's pictures, or several of them: a path, bytes, base64, or a list of these; None: none.
    A question without `<image>` gets one in front for each picture; `<image1>` stands for one, too."""
    image_folder: str | None = None
    """Where relative paths of pictures begin; None: at the data file."""
    meanings: dict[str, str] = Field(default_factory=dict)
    """What values of the gold column stand for: {"0": entailment}."""
    subject: str | None = None
    """Column by which figures are split."""
    group: str | None = None
    """Column that is the same for siblings, such as versions of one problem: they share a rating of difficulty, and the
    worst of them has a figure of its own."""
    keep: Many[str] = ()
    """Further columns kept with every item."""
    limit: int | None = Field(default=None, gt=0)
    """Only the first so many rows."""
    size: int | None = Field(default=None, gt=0)
    """Rows that the set is known to have: for forecasts without the network."""
    licence: str | None = None

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        columns(value or "")
        return value

    @property
    def local(self) -> Path | None:
        """The file or folder, if `path` names one."""
        found = resource(self.path)
        looks_local = self.path.startswith(("/", "./", "../", "~")) or found.suffix in (*SUFFIXES, ".txt")
        return found if found.exists() or looks_local else None

    def fingerprint(self) -> str:
        """Content for local data, id and revision for the hub, and how the columns are read."""
        local = self.local
        if local is not None and local.exists():
            content = file_digest(local) if local.is_file() else folder_digest(local, ("*/*", "*"))
        else:
            content = f"{self.path}@{self.revision}"
        shown = self.images and local is not None and self.pictured.files(self.rows())
        return digest([content, self.key_fields(), digest(known_digests(shown)) if shown else None])

    def count(self) -> int | None:
        """Rows, where that can be said without the network."""
        local = self.local
        if local is not None and local.exists():
            return len(self.rows())
        return self.size if self.limit is None or self.size is None else min(self.size, self.limit)

    def rows(self) -> Rows:
        """All rows as they are. Raises `UserError` where the data can't be had or lack a column."""
        local = self.local
        if local is not None and not local.exists():
            raise UserError(
                f"no such data file: {self.path}",
                got=f"nothing there, seen from {Path.cwd()}",
                next_step="check the path; tasks/NAME/README.md of a task says where its data come from; or measure "
                'nothing: task.test.path=""',
            )
        if local is None:
            rows = hub_rows(self.path, self.config, self.split, self.revision)
        else:
            rows = saved_rows(local, self.split) if local.is_dir() else read_rows(local, self.format)
        if not rows:
            raise UserError(
                f"data set {self.path} is empty",
                got=f"0 rows in split {self.split}",
                next_step='give another one, or none: task.test.path=""',
            )
        rows = rows[: self.limit]
        self._check_columns(rows)
        return rows

    def load(self, grader: "Grader", gallery: Gallery | None = None) -> list[Item]:
        """Questions with canonical gold answers, and with their pictures where a gallery is given to keep them. Raises
        `UserError` naming the rows that are ill-formed."""
        rows = self.rows()
        found = [self.item(row, grader) for row in rows]
        items = [item for item in found if isinstance(item, Item)]
        if len(items) == len(rows):
            return self._illustrated(items, rows, gallery) if self.images and gallery else items
        what = next(item for item in found if isinstance(item, str))
        faulty = [number for number, item in enumerate(found, 1) if item == what]
        raise UserError(
            f"{self.path}: {len(faulty)} of {len(rows)} {what}",
            got=f"rows {faulty[:5]}, such as {text(lookup(rows[faulty[0] - 1], self.output))[-80:]!r}",
            next_step="check answer.kind and its options, or mend the rows; `dsrl task check` lists them all",
        )

    def item(self, row: Mapping[str, Any], grader: "Grader") -> "Item | str":
        """A row read by an answer kind, or what is wrong with it."""
        question, options = self.question(row), self._options(row)
        if not question.strip():
            return NO_QUESTION
        if self.misplaced(question, row):
            return PLACEHOLDERS
        if self._without_right(options, grader):
            return NO_OPTION
        gold = options.right if options is not None and options.right else self._gold(row)
        reader = grader.for_question(question)
        answer = reader.gold(gold)
        if answer is None:
            return UNREAD
        if (allowed := reader.allowed()) and answer not in allowed:
            return NO_OPTION
        subject, group = (text(lookup(row, name)) if name else None for name in (self.subject, self.group))
        data = {name: lookup(row, name) for name in self.keep}
        return Item(input=question, answer=answer, subject=subject, group=group, data=data)

    def question(self, row: Mapping[str, Any]) -> str:
        """The question of a row, with its options below it."""
        asked, options = self._asked(row), self._options(row)
        written = options.render() if options is not None else ""
        return f"{asked}\n{written}" if written else asked

    def bare_question(self, row: Mapping[str, Any]) -> str:
        """The question of a row, without its options."""
        return self._asked(row)

    def free_item(self, row: Mapping[str, Any], grader: "Grader") -> "Item | str":
        """A multiple-choice row as a question to be answered freely, with the right option's text for an answer."""
        question, options = self._asked(row), self._options(row)
        if options is None and grader.open:
            return self.item(row, grader)
        if not question.strip():
            return NO_QUESTION
        if self.misplaced(question, row):
            return PLACEHOLDERS
        if options is None or options.right_text is None:
            return NO_OPTION
        answer = grader.for_question(question).gold(options.right_text)
        return UNREAD if answer is None else Item(input=question, answer=answer)

    def misplaced(self, question: str, row: Mapping[str, Any]) -> bool:
        """Whether the question names more or fewer pictures than the row has."""
        return bool(self.images) and marked(question, self._num_images(row)) is None

    @property
    def pictured(self) -> Columns:
        """The columns of pictures."""
        local = self.local
        beside = local.parent if local is not None else None
        return Columns(self._image_names, resource(self.image_folder) if self.image_folder is not None else beside)

    @property
    def _image_names(self) -> tuple[str, ...]:
        return (self.images,) if isinstance(self.images, str) else self.images or ()

    def _num_images(self, row: Mapping[str, Any]) -> int:
        """Without a look at the disk, because every row is asked several times."""
        return len(Columns(self._image_names, None).cells(row))

    def marks(self, gallery: Gallery) -> list[str]:
        """Row by row, what is equal for the same words and pictures; `Sample.mark` and `Item.mark` are made alike."""
        rows = self.rows()
        if not self.images:
            return [text_digest(self.question(row)) for row in rows]
        found = self.pictured.kept(rows, gallery)
        digests = [[] if isinstance(one, Unfit) else [image.digest for image in one] for one in found]
        return [content_mark(self.question(row), own) for row, own in zip(rows, digests, strict=True)]

    def check_images(self) -> None:
        """Raises `UserError` where image files are missing; of many, only some are looked for."""
        files = self.pictured.files(self.rows()) if self.images and self.local is not None else []
        looked = files[:: len(files) // LOOKED_FOR + 1]
        if missing := [path for path in looked if not path.is_file()]:
            raise UserError(
                f"{self.path}: {len(missing)} of {len(looked)} image files are missing",
                got=f"no file {missing[0]}",
                next_step="give the folder in which their paths begin: task.test.image_folder=FOLDER",
            )

    def _illustrated(self, items: list[Item], rows: Rows, gallery: Gallery) -> list[Item]:
        found = self.pictured.kept(rows, gallery)
        if faulty := {number: one for number, one in enumerate(found, 1) if isinstance(one, Unfit)}:
            first, fault = next(iter(faulty.items()))
            raise UserError(
                f"{self.path}: {len(faulty)} of {len(rows)} rows have images that can't be used",
                got=f"rows {list(faulty)[:5]}; row {first}: {fault.reason}: {fault}",
                next_step="mend or remove them",
            )
        pairs = zip(items, found, strict=True)
        return [dataclasses.replace(item, images=images) for item, images in pairs]  # type: ignore[arg-type]

    def _asked(self, row: Mapping[str, Any]) -> str:
        asked = filled(self.template, row) if self.template else text(lookup(row, self.input))
        if not self.images:
            return asked
        count = self._num_images(row)
        asked = unnumbered(asked, count)
        return marked(asked, count) or asked

    def _without_right(self, options: Options | None, grader: "Grader") -> bool:
        """Whether a row lacks what its options are for; one without any is an open question, where there are such."""
        if options is None:
            return self.options is not None and not grader.open
        return options.right is None

    def _gold(self, row: Mapping[str, Any]) -> str:
        value = text(lookup(row, self.output))
        return self.meanings.get(value, value)

    def _options(self, row: Mapping[str, Any]) -> Options | None:
        if self.options is None:
            return None
        if isinstance(self.options, str):
            named = named_options(lookup(row, self.options))
        else:
            named = {name: text(lookup(row, name)) for name in self.options}
        named = {name: option for name, option in named.items() if option.strip()}
        if not named:
            return None
        if self.output in named:
            return shown(named, self.output, self._asked(row), self.option_seed)
        right = right_name(named, self._gold(row), self.index_from)
        return shown(named, right, self._asked(row), self.option_seed)

    def _check_columns(self, rows: Rows) -> None:
        asked = columns(self.template) if self.template else {self.input}
        options = (self.options,) if isinstance(self.options, str) else self.options or ()
        subject, group = ((name,) if name else () for name in (self.subject, self.group))
        named = {
            "input": asked,
            "output": (self.output,),
            "options": options,
            "images": self._image_names,
            "subject": subject,
            "group": group,
            "keep": self.keep,
        }
        keys = {column: key for key, columns in named.items() for column in columns}
        for number, row in enumerate(rows, 1):
            if missing := sorted(name for name in keys if not has(row, name)):
                cures = dict.fromkeys(f"task.test.{keys[name]}=..." for name in missing)
                raise UserError(
                    f"{self.path} has no column {', '.join(missing)}" + (f" in row {number}" if number > 1 else ""),
                    got=f"columns {', '.join(sorted(map(str, row)))}",
                    next_step=f"name the right ones: {' '.join(cures)}",
                )
