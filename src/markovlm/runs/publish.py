"""Upload an exported directory to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markovlm.errors import RunFailed, UserError


@dataclass(frozen=True, slots=True)
class Push:
    """What to upload, and to which repository."""

    repository: str  # ORG/NAME
    files: tuple[tuple[str, int], ...]  # name, bytes
    private: bool
    message: str  # of the commit


def plan_push(folder: Path, repository: str, private: bool, message: str) -> Push:
    """What a push of `folder` would upload; needs no network. Raises UserError for an invalid repository name."""
    check_repository(repository)
    files = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    return Push(repository, tuple(files), private, message)


def check_repository(repository: str) -> None:
    """Raise UserError unless the name is ORG/NAME as the Hub allows it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: {' '.join(str(error).split()):.200}") from None
    if repository.count("/") != 1:
        raise UserError(f"--push {repository}: must be ORG/NAME: an account or organisation, and a name")


def push(folder: Path, planned: Push) -> str:
    """Upload the files in one commit, creating the repository if needed. Returns its address. Raises UserError without a token or
    without write access, RunFailed if the Hub can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api: Any = HfApi()
    try:
        address = api.create_repo(planned.repository, private=planned.private, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=planned.repository, commit_message=planned.message)
    except (LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        reason = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else "you are not logged in: `hf auth login`"
        raise UserError(f"--push {planned.repository}: {reason}") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"--push {planned.repository}: the Hub refused the upload ({status}); log in with a token that has write access"
            ) from None
        raise RunFailed(f"--push {planned.repository}: the Hub answered: {' '.join(str(error).split()):.200}") from error
    except Exception as error:  # the HTTP library's own kinds of a network that is not there
        if not _is_network(error):
            raise
        raise RunFailed(f"--push {planned.repository}: the Hub can't be reached; the export is in {folder}") from error
    return str(address)


def _is_network(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "requests",
    )
