"""An exported folder on the Hugging Face hub."""

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
CURE = "what was written lies in the folder: `hf upload` takes it from there"


def check_push(repo: str) -> "HfApi":
    """A client, before anything is written. Raises `UserError` for a name that is none, without a token and where the
    environment forbids the network."""
    owner, slash, name = repo.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise UserError("push: no name of a repository", got=repo, allowed="owner/name")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError("push: HF_HUB_OFFLINE forbids the network", next_step="unset it, or leave push out")
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
    """The data set, and the model under the same name among the models; their addresses."""
    kinds = [("dataset", folder, ["model/*", "export.json"])]
    kinds += [("model", folder / "model", [])] if (folder / "model").is_dir() else []
    addresses = []
    with refusals(repo):
        for kind, place, without in kinds:
            made: Any = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, repo_type=kind, folder_path=place, ignore_patterns=without)
            addresses.append(str(made))
    return addresses


@contextmanager
def refusals(repo: str) -> Iterator[None]:
    """What the hub or the network says, as a `UserError`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise UserError(f"push: the hub refuses {repo}", got=f"{status}: {_first(error)}", next_step=CURE) from error
    except (httpx2.HTTPError, OSError) as error:
        raise UserError("push: the hub can't be reached", got=_first(error), next_step=CURE) from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
