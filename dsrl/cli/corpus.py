"""`dsrl corpus index`, `search`, `ls` and `rm`: corpora and their indexes, outside of a run."""

import os
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.core.resources import home

if TYPE_CHECKING:
    from dsrl.stages.retrieve import Retriever
    from dsrl.stages.retrieve.ingest import IngestReport

USAGE = """dsrl corpus index NAME|PATH... [retriever=embedded] [retriever.KEY=VALUE ...]
           dsrl corpus search "WORDS" [corpora=NAME,PATH...] [limit=10] [retriever=... retriever.KEY=VALUE ...]
           dsrl corpus ls
           dsrl corpus rm NAME|KEY [yes=true]
           each with store=FOLDER"""
OPTIONS = {"index": ("store",), "search": ("store", "corpora", "limit"), "ls": ("store",), "rm": ("store", "yes")}
MAX_HITS = 1000


def corpus(arguments: list[str]) -> int:
    """`dsrl corpus ACTION ...`."""
    words = [argument for argument in arguments if not _is_option(argument)]
    options = dict(argument.split("=", 1) for argument in arguments if _is_option(argument))
    if not words or words[0] not in OPTIONS:
        raise UserError("corpus: unknown action", got=" ".join(arguments) or None, allowed=USAGE)
    verb, rest = words[0], words[1:]
    overrides = {key: options.pop(key) for key in list(options) if key.partition(".")[0] == "retriever"}
    if verb in ("ls", "rm") and overrides:
        options.update(overrides)
    if unknown := sorted(set(options) - set(OPTIONS[verb])):
        raise UserError(f"{unknown[0]}: unknown option of corpus {verb}", allowed=OPTIONS[verb])
    work = {"index": index, "search": search, "ls": ls, "rm": rm}[verb]
    return work(rest, options, overrides)


def index(words: list[str], options: Mapping[str, str], overrides: Mapping[str, str]) -> int:
    """Index corpora, and report how they were read."""
    from dsrl.pipeline.progress.progress import Progress

    if not words:
        raise UserError("corpus index needs corpora", allowed=USAGE)
    retriever, started = _retriever(words, overrides), time.monotonic()
    report = retriever.index(_root(options), Progress())
    for line in describe(report):
        print(line)
    print(f"took      {time.monotonic() - started:.1f} s")
    return 0


def describe(report: "IngestReport") -> Iterator[str]:
    """How many documents were read, left out and indexed."""
    yield f"read      {report.read} documents, {report.bytes / 1e6:.1f} MB"
    left_out = {
        "duplicates": report.duplicates,
        "near duplicates": report.near_duplicates,
        "empty": report.empty,
        "malformed lines": report.num_malformed,
        "files of unknown kind": report.skipped,
    }
    if any(left_out.values()):
        yield "left out  " + ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
    yield from (f"          {line}" for line in report.malformed[:5])
    yield f"indexed   {report.kept} documents in {report.pieces} pieces"


def search(words: list[str], options: Mapping[str, str], overrides: Mapping[str, str]) -> int:
    """Print the best hits for some words."""
    from dsrl.pipeline.progress.progress import Progress

    if len(words) != 1:
        raise UserError("corpus search needs the words as one argument, in quotes", got=words or None, allowed=USAGE)
    limit = _limit(options.get("limit", "10"))
    given = [name for name in options.get("corpora", "everyday").strip("[]").split(",") if name.strip()]
    retriever = _retriever([name.strip() for name in given], overrides)
    opened = retriever.open(_root(options), Progress())
    if opened is None:
        raise UserError("corpus search: retriever=none has no index", next_step="give retriever=embedded")
    searcher = retriever.rerank_hits(opened)
    started = time.monotonic()
    hits = searcher.search(words[0], limit)
    seconds = time.monotonic() - started
    searcher.close()
    for number, hit in enumerate(hits, 1):
        print(f"{number:>3}  {hit.score:6.2f}  {hit.source}" + (f" at character {hit.offset}" if hit.offset else ""))
        print(textwrap.indent(textwrap.fill(textwrap.shorten(hit.text, 600), 100), "             "))
    print(f"{len(hits)} hits among {searcher.num_documents} pieces in {seconds * 1000:.1f} ms")
    return 0


def ls(words: list[str], options: Mapping[str, str], _: Mapping[str, str]) -> int:
    """The corpora that have a manifest, and the indexes in the store."""
    from dsrl.stages.retrieve.corpus import find_corpus
    from dsrl.stages.retrieve.index_registry import BuiltIndex, list_indexes

    if words:
        raise UserError("corpus ls takes no words", got=" ".join(words), allowed=USAGE)
    for manifest in sorted((home() / "corpora").glob("*.json")):
        found = find_corpus(str(manifest))
        print(f"corpus  {found.name:<20} {found.rows or '?':>10} documents  {found.location}")
    for folder, made in list_indexes(_root(options)):
        what = (
            f"{made.num_pieces:>10} pieces     {', '.join(made.corpus_names)}" if isinstance(made, BuiltIndex) else made
        )
        print(f"index   {folder.name:<20} {what}  {_size(folder) / 1e6:.1f} MB")
    for folder in _unfinished(_root(options)):
        print(f"index   {folder.name.removeprefix('.making-'):<20} unfinished  {_size(folder) / 1e6:.1f} MB")
    return 0


def rm(words: list[str], options: Mapping[str, str], _: Mapping[str, str]) -> int:
    """Remove the indexes that hold a corpus, or the one of this key; the corpora themselves stay."""
    from dsrl.stages.retrieve.index_registry import BuiltIndex, list_indexes

    if len(words) != 1:
        raise UserError("corpus rm: which corpus or index?", got=words or None, allowed=USAGE)
    if (sure := options.get("yes", "false").lower()) not in ("true", "false"):
        raise UserError("yes: neither yes nor no", got=options["yes"], allowed=("true", "false"))
    root, name = _root(options), words[0]
    doomed = [
        folder
        for folder, made in list_indexes(root)
        if folder.name == name or (isinstance(made, BuiltIndex) and name in made.corpus_names)
    ]
    doomed += [folder for folder in _unfinished(root) if folder.name == f".making-{name}"]
    if not doomed:
        raise UserError("corpus rm: no index of such a corpus or with such a key", got=name, next_step="dsrl corpus ls")
    for folder in doomed:
        print(f"{'removed' if sure == 'true' else 'would remove'} {folder}  {_size(folder) / 1e6:.1f} MB")
        if sure == "true":
            shutil.rmtree(folder)
    if sure != "true":
        print("yes=true does it; indexes are made again when needed")
    return 0


def _is_option(argument: str) -> bool:
    """Whether an argument is `key=value`, and not search words, which may contain anything."""
    key, sign, _ = argument.partition("=")
    return bool(sign) and " " not in key and (key.partition(".")[0] == "retriever" or key.isidentifier())


def _retriever(corpora: list[str], overrides: Mapping[str, str]) -> "Retriever":
    """The checked retriever of the config, with these corpora."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from dsrl.pipeline.config import build

    try:
        with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
            config = compose("config", [f"{key}={value}" for key, value in overrides.items()])
    except HydraException as error:
        raise UserError("corpus: no such retriever or setting of it", got=str(error).splitlines()[0]) from error
    values: Any = OmegaConf.to_container(config.retriever, resolve=True)
    if "corpora" not in values:
        raise UserError("corpus: this retriever takes no corpora", got=overrides["retriever"], allowed="embedded")
    found: Retriever = build({**values, "corpora": corpora}, "retriever")
    found.check()
    return found


def _root(options: Mapping[str, str]) -> Path:
    """The folder where runs with this store keep their indexes."""
    return Path(options.get("store", os.environ.get("DSRL_STORE", "store"))).expanduser().absolute() / "index"


def _unfinished(root: Path) -> list[Path]:
    return sorted(path for path in root.glob(".making-*") if path.is_dir())


def _limit(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= MAX_HITS:
        raise UserError("limit: not a valid number of hits", got=given, allowed=f"1 to {MAX_HITS}")
    return int(given)


def _size(folder: Path) -> int:
    """Size in bytes. Files shared by two indexes count in both."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
