"""The model hub: asked in the first seconds, and its answer put into words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError

ANSWER_SECONDS = 5
FILES: dict[str, Any] = {
    "allow_patterns": ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja"],
    # Folders and these names hold the same weights again, in other formats.
    "ignore_patterns": ["*/*", "consolidated*", "*.fp16.safetensors"],
}


class NoAnswerError(Exception):
    """The model hub cannot be reached, or is switched off."""


def ask(hub_id: str) -> None:
    """Return if the hub has the base and lets us read it; else a UserError, or NoAnswerError where nothing answers."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    if constants.is_offline_mode():
        raise NoAnswerError("the model hub is switched off by HF_HUB_OFFLINE")
    started = time.monotonic()
    try:
        get_hf_file_metadata(hf_hub_url(hub_id, "config.json"), timeout=ANSWER_SECONDS)
    except errors.GatedRepoError as error:
        raise UserError(f"{hub_id} is gated: its owner wants its licence accepted first.",
                        fix=f"accept it on {constants.ENDPOINT}/{hub_id}, then log in with `hf auth login`") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(f"The model hub has no base {hub_id} that you may read.",
                        fix="`tuneloop models` lists short names; for a private base log in with `hf auth login`"
                        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{hub_id} has no config.json: it is not a base in the Hugging Face layout.",
                        fix="choose the base's original repository, not a GGUF or adapter one") from error
    except Exception as error:      # the HTTP client below the hub's library, and so its errors, changes with versions
        took = time.monotonic() - started
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NoAnswerError(f"the model hub did not answer (given up after {took:.0f} s: {reason})") from error


def cached(hub_id: str) -> Path | None:
    """The folder of `hub_id` in the hub's own cache, or None. Asks no network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, local_files_only=True, **FILES))
    except (OSError, ValueError):
        return None


def download(hub_id: str, only: str | None = None) -> Path:
    """Download `hub_id`, or the one file `only` of it, into the hub's own cache.

    A download that was cut off goes on where it stopped.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, etag_timeout=ANSWER_SECONDS,
                                      **({"allow_patterns": [only]} if only else FILES)))
    except Exception as error:      # as above
        raise UserError(f"The download of {hub_id} stopped: {error}",
                        fix="run the command again: it goes on where it stopped") from error
