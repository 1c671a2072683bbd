"""Push an exported folder to the Hugging Face hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
NEXT_STEP = "the export is in the folder: `hf upload` can push it from there"


def check_push(repo: str) -> "HfApi":
    """Return a client, before anything is written. Raises `UserError` for an invalid name, without a token, or if the
    environment forbids the network."""
    owner, slash, name = repo.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise UserError("push: not a repository name", got=repo, allowed="owner/name")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError("push: HF_HUB_OFFLINE forbids the network", next_step="unset it, or omit push")
    if find_spec("huggingface_hub") is None:
        raise UserError("push: huggingface_hub isn't installed", next_step="pip install huggingface_hub")
    token = os.environ.get(TOKEN)
    if not token:
        raise UserError(
            f"push: {TOKEN} is not set", next_step=f"export {TOKEN}=... with a token that may write; it is never stored"
        )
    from huggingface_hub import HfApi

    return HfApi(token=token)


def push(api: "HfApi", folder: Path, repo: str, *, private: bool) -> list[str]:
    """Push the data set, and the model as a model repository of the same name. Returns their addresses."""
    kinds = [("dataset", folder, ["model/*", "export.json"])]
    kinds += [("model", folder / "model", [])] if (folder / "model").is_dir() else []
    addresses = []
    with hub_errors(repo):
        for kind, place, without in kinds:
            made: Any = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, repo_type=kind, folder_path=place, ignore_patterns=without)
            addresses.append(str(made))
    return addresses


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn errors of the hub and the network into `UserError`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise UserError(
            f"push: the hub refuses {repo}", got=f"{status}: {_first_line(error)}", next_step=NEXT_STEP
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise UserError("push: the hub can't be reached", got=_first_line(error), next_step=NEXT_STEP) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
