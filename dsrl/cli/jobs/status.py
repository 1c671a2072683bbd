"""`dsrl status`: how runs stand, here and in Slurm, told from the outside; closes what a killed run left open."""

import json
from collections.abc import Iterator
from pathlib import Path

from dsrl.cli.jobs.close_killed import close
from dsrl.cli.jobs.run_state import Look, look_at
from dsrl.core.errors import UserError
from dsrl.pipeline.run_folder import shown

LATEST = 12
"""Runs that are listed."""
LINES = 8
"""Of a log."""


def status(arguments: list[str]) -> int:
    """`dsrl status [JOB | FOLDER]`: the latest runs; one run or job with the end of its log; the jobs of a sweep."""
    if len(arguments) > 1 or any(word.startswith("-") or "=" in word for word in arguments):
        raise UserError("status: what of?", got=" ".join(arguments), allowed="dsrl status [JOB | FOLDER]")
    folders = latest() if not arguments else find(arguments[0])
    looks = look_at(folders)
    if not looks:
        print("no runs here: runs/ and multirun/ are looked for in the working folder")
    for look in looks:
        print(look)
    if arguments and len(looks) == 1:
        for line in details(looks[0]):
            print(line)
    for line in close([look for look in looks if look.died]):
        print(line)
    return 0


def latest() -> list[Path]:
    """The latest runs below the working folder."""
    return sorted(run_folders(Path()), key=lambda folder: folder.stat().st_mtime)[-LATEST:]


def run_folders(root: Path) -> set[Path]:
    """Every run in Hydra's places."""
    names = ("status.json", "submission.json")
    found = [path.parent for name in names for path in root.glob(f"runs/*/*/{name}")]
    return {*found, *(path.parent for name in names for path in root.glob(f"multirun/*/*/*/{name}"))}


def find(what: str) -> list[Path]:
    """A run folder, the folders of a sweep, or those of a Slurm job's number."""
    folder = Path(what).expanduser()
    if folder.is_dir():
        return jobs_of(folder) or [folder]
    found = [path for path in sorted(run_folders(Path())) if job_of(path) in (what, *_members(what, path))]
    if not found:
        raise UserError(
            "no such run or job", got=what, allowed="a run folder, a sweep's folder, or the number of a Slurm job",
            next_step="dsrl status, in the folder from which it was sent, lists them",
        )  # fmt: skip
    return found


def _members(what: str, folder: Path) -> list[str | None]:
    """A whole array, by its number."""
    job = job_of(folder)
    return [job] if job and job.partition("_")[0] == what else []


def jobs_of(folder: Path) -> list[Path]:
    """The runs of a sweep, in their order."""
    sweep = folder / "sweep.json"
    if sweep.is_file():
        return [Path(job["folder"]) for job in json.loads(sweep.read_text(encoding="utf-8"))]
    return sorted((path.parent for path in folder.glob("*/status.json")), key=lambda run: (len(run.name), run.name))


def job_of(folder: Path) -> str | None:
    """The Slurm job that a run is or was."""
    return look_at([folder], ask=False)[0].job


def details(look: Look) -> Iterator[str]:
    """The last stage, the reason of a failure, and the end of the log."""
    if look.stage:
        yield f"stage  {look.stage} was finished last"
    if look.reason:
        yield f"reason {look.reason}"
    if look.log and look.log.is_file():
        yield f"log    {shown(look.log)}"
        lines = look.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
        yield from (f"  | {line[:200]}" for line in lines)
