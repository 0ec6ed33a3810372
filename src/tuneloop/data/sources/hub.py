"""Data sets of the Hugging Face hub by their id: `hub:owner/name`, `hub:owner/name@revision#config/split`.

Tested against a server that answers as the hub does, not against the hub itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tuneloop.data.read import Row, source_of_file
from tuneloop.data.sources import base
from tuneloop.data.sources._hub_layout import Parts, find, parts_of, parts_of_converted
from tuneloop.errors import UserError

ANSWER_SECONDS = 10
CONVERTED = "refs/convert/parquet"      # a branch on which the hub keeps what it converted
NAME = re.compile(r"hub:(?:datasets/)?(?P<id>[^@#\s]+)(?:@(?P<revision>[^#\s]+))?(?:#(?P<part>.*))?")


class Source(base.Source):
    """One split of one configuration. Its files are downloaded into the hub's own cache when their rows are read."""

    schemes = ("hub:",)
    kind = "Hugging Face data set"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        found = NAME.fullmatch(name)
        if found is None:
            raise UserError(f"{shown} names no data set of the hub.", wanted="hub:owner/name#config/split")
        self.id, wanted = found["id"], (found["part"] or "").strip()
        self.revision, parts, self.sizes = self._asked(found["revision"])
        part = find(parts, wanted)
        if part is None:
            raise self._no_part(parts, wanted)
        self.files = parts[part]
        self.notes.append(f"{part} at revision {self.revision[:12]}: {len(self.files)} "
                          f"{'file' if len(self.files) == 1 else 'files'}, "
                          f"{sum(self.sizes[file] for file in self.files) / 1e6:,.1f} MB")

    def rows(self) -> Iterator[Row]:
        return base.some(self._rows(), self.shown)

    def _rows(self) -> Iterator[Row]:
        for file in self.files:
            part = self._part(file)
            for row in part.rows():
                yield Row(row.line, row.values, part.shown)
            self.notes += [f"{part.shown}: {note}" for note in part.notes]

    def parts(self) -> Sequence[base.Part]:
        return [base.Part(self.sizes[file], partial(self._part, file)) for file in self.files]

    def _part(self, file: str) -> base.Source:
        path, shown = self._downloaded(file), f"hub:{self.id}/{file}"
        return source_of_file(path, shown)(str(path), Path(), shown)

    def _asked(self, revision: str | None) -> tuple[str, Parts, dict[str, int]]:
        """(commit, parts, bytes of each file), as the hub says."""
        from huggingface_hub import errors

        with self._in_words():
            commit, configs, sizes = self._listing(revision)
            parts = parts_of(configs, list(sizes))
            if not parts and revision is None:
                try:
                    commit, _, sizes = self._listing(CONVERTED)
                except errors.RevisionNotFoundError:
                    sizes = {}
                parts = parts_of_converted(list(sizes))
                self.notes += ["what the hub itself has converted to Parquet was read"] if parts else []
        if not parts:
            raise UserError(f"{self.shown}: there is no file of rows in this data set.",
                            wanted="Parquet, JSON, CSV or Arrow files",
                            fix="a script may make it: run that, and name the file that it writes")
        return commit, parts, sizes

    def _listing(self, revision: str | None) -> tuple[str, Any, dict[str, int]]:
        """(commit, what the card says of configurations, bytes of each file)."""
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(self.id, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
        configs = info.card_data.get("configs") if info.card_data else None
        return str(info.sha), configs, {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def _no_part(self, parts: Parts, wanted: str) -> UserError:
        name = f"hub:{self.id}"
        said = f"none of them is {wanted}" if wanted else "which one is not said"
        return UserError(f"{self.shown} has {len(parts)} parts, and {said}.", wanted=f"one of: {', '.join(parts)}",
                         fix=f"write {name}#{next(iter(parts))}")

    def _downloaded(self, file: str) -> Path:
        from huggingface_hub import HfApi

        with self._in_words():
            return Path(HfApi().hf_hub_download(self.id, file, repo_type="dataset", revision=self.revision,
                                                etag_timeout=ANSWER_SECONDS))

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What the hub, or the lack of it, answers."""
        from huggingface_hub import constants, errors

        try:
            yield
        except errors.GatedRepoError:
            raise UserError(f"{self.shown} is gated: its owner wants its terms accepted first.",
                            fix=f"accept them on {constants.ENDPOINT}/datasets/{self.id}, then log in with "
                                "`hf auth login`") from None
        except errors.RevisionNotFoundError:
            raise UserError(f"{self.shown}: the data set has no such revision.",
                            wanted="a branch, a tag or a commit behind the @") from None
        except (errors.RepositoryNotFoundError, errors.HFValidationError):
            raise UserError(f"The hub has no data set {self.id} that you may read.",
                            fix="look at the spelling; for a private one log in with `hf auth login`") from None
        except errors.OfflineModeIsEnabled:
            raise UserError(f"{self.shown}: the hub is switched off by HF_HUB_OFFLINE.",
                            fix="switch it on, or name files that are here") from None
        except UserError:
            raise
        except Exception as error:      # the HTTP client below the hub's library, and so its errors, changes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(f"{self.shown}: the hub did not answer as it should ({reason}).",
                            fix="look at the network, try again, or name files that are here") from error
