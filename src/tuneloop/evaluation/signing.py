"""Trust in a certificate: signed with a key of this workspace, over what it says and the files that it rests on.

Ed25519 (RFC 8032) over the canonical JSON of the certificate, its `signature` without `value` included. Canonical JSON
is what `canonical` makes: keys sorted, no spaces, UTF-8, no NaN. Deviation from RFC 8785: a number is written as Python
writes it, the shortest decimal that reads back as the same double (1.0 stays 1.0), so that reading a certificate from
its file and writing it canonically gives the bytes that were signed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tuneloop.errors import UserError
from tuneloop.evaluation import blind
from tuneloop.evaluation.certificate import PERPLEXITY
from tuneloop.evaluation.contenders import answers_file
from tuneloop.evaluation.goal import Goal
from tuneloop.grading.metrics import METRICS, perplexity
from tuneloop.record import RunFolder, read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TOLERANCE = 1e-12
"""How far a score may be from what its predictions give; sums in another order differ by less."""

PREDICTIONS = "evaluation/predictions.jsonl"
MODELS = ("adapter", "model")       # folders of what was trained
_WITHOUT = {"record.json": ("timings_seconds",)}    # is written after the certificate
_KEY, _PUBLIC = "signing.key", "signing.pub"


class Signature(BaseModel):
    """The `signature` of a certificate. An unsigned one has `why` in the place of a key and a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: Literal["ed25519"] | None
    files: dict[str, str]           # path in the run folder -> sha256 of what was signed
    public_key: str = ""            # base64 of its 32 bytes
    signed_at: str = ""             # UTC, by the clock of the machine that signed
    value: str = ""                 # base64 of 64 bytes
    why: str = ""


# ── the key of the workspace ─────────────────────────────────────────────────────────────────────────────────────────

def keys_folder() -> Path:
    """`TUNELOOP_KEYS`, or a folder in the user's configuration of this platform."""
    if given := os.environ.get("TUNELOOP_KEYS"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_config_path

    return user_config_path("tuneloop", appauthor=False) / "keys"


def workspace_key() -> Ed25519PrivateKey:
    """The private key of this workspace, made on first use; `signing.pub` beside it is for those who verify.

    Raises a UserError where cryptography is missing, the folder cannot be written, or others may read the key.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from filelock import FileLock

    path = keys_folder() / _KEY
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(path.with_name(f".{_KEY}.lock")):     # of several processes one makes it
                if not path.exists():
                    _make_key(path)
        return _read_private(path)
    except OSError as error:
        raise UserError(f"The signing key {path} cannot be used: {error.strerror or error}.",
                        fix="set TUNELOOP_KEYS to a folder that only you can write") from error
    except UnsupportedAlgorithm as error:       # such as an OpenSSL that is held to FIPS 140-2
        raise UserError(f"This machine's cryptography has no ed25519: {error}.") from error


def _make_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    partial = path.with_name(f".{_KEY}.partial")
    partial.unlink(missing_ok=True)     # by a process that was killed: we hold the lock, it is nobody's
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    path.with_name(_PUBLIC).write_bytes(public)
    os.replace(partial, path)


def _read_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise UserError(f"Others may read the signing key {path}, so a signature would prove nothing.",
                        fix=f"chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise UserError(f"The signing key {path} cannot be read: {error}.",
                        fix="put it back, or move it away: a new one is made then") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"The signing key {path} is of another kind.", wanted="an ed25519 key in PEM")
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """The public key in a file: PEM, or the base64 text that a certificate shows. Raises a UserError."""
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The key {path} cannot be read: {error.strerror}.") from error
    try:
        key = load_pem_public_key(content) if b"-----BEGIN" in content else _public(content.decode().strip())
    except (ValueError, TypeError) as error:        # a UnicodeDecodeError is a ValueError
        raise UserError(f"{path} holds no public key.", wanted=f"{_PUBLIC} of who signed, or the public_key that the "
                        "certificate shows") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"The key {path} is of another kind.", wanted="an ed25519 public key")
    return key


def _public(text: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))


def _shown(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()


def _workspace_public() -> str:
    """The public key of this workspace as a certificate shows it; nothing where there is no key yet: none is made."""
    return _shown(workspace_key().public_key()) if os.path.exists(keys_folder() / _KEY) else ""


def _require_cryptography() -> None:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: F401
    except ImportError as error:
        raise UserError("Signing and verifying a certificate needs the package cryptography, which is not installed.",
                        fix="pip install cryptography") from error


# ── signing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def canonical(value: Any) -> bytes:
    """The one way to write a JSON value. Raises ValueError for NaN and infinities.

    Tuples become lists and all keys texts before they are sorted, as in a file; lone surrogates pass.
    """
    plain = json.loads(json.dumps(value, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False,
                      allow_nan=False).encode("utf-8", "surrogatepass")


def digest(path: Path) -> str:
    """sha256 of a file; of `record.json` without what is written after the certificate, canonically. Raises OSError."""
    if path.name in _WITHOUT:
        try:
            content = {k: v for k, v in json.loads(path.read_bytes()).items() if k not in _WITHOUT[path.name]}
            return hashlib.sha256(canonical(content)).hexdigest()
        except (ValueError, AttributeError, RecursionError):        # no record any more: its bytes tell
            pass
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_to_sign(folder: Path) -> dict[str, Path]:
    """What a certificate rests on, by its path in the run folder: the recipe, the record, the plan, the losses, what
    was answered, what people judged, and the model itself."""
    found = [folder / name for name in ("recipe.yaml", "record.json", "plan.json", "metrics.jsonl")]
    found += [path for path in (folder / "evaluation").glob("*") if path.suffix in (".json", ".jsonl")]
    if (folder / blind.FOLDER / blind.JUDGEMENTS).exists():     # without any the certificate says nothing of its pairs
        found += [folder / blind.FOLDER / name for name in (blind.PAIRS, blind.KEY, blind.JUDGEMENTS)]
    found += _model_files(folder)
    return {path.relative_to(folder).as_posix(): path for path in sorted(found) if path.is_file()}


def _model_files(folder: Path) -> list[Path]:
    return [path for name in MODELS for path in (folder / name).rglob("*") if path.is_file()]


def sign(certificate: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """`certificate` with its `signature`. Where there is no key to sign with it says that it is unsigned, and why:
    a run never fails for it. The hashes of `files` are there in both cases."""
    content = {key: value for key, value in certificate.items() if key != "signature"}
    signature: dict[str, Any] = {"algorithm": None, "files": {name: digest(path) for name, path in files.items()}}
    try:
        key = workspace_key()
    except UserError as error:
        return content | {"signature": signature | {"why": error.text}}
    signature |= {"algorithm": "ed25519", "public_key": _shown(key.public_key()),
                  "signed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    value = key.sign(canonical(content | {"signature": signature}))
    return content | {"signature": signature | {"value": base64.b64encode(value).decode()}}


def write_signed(certificate: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Sign the certificate of a run over the files in its folder and write it there; returns what was written."""
    signed = sign(certificate, files_to_sign(folder.path))
    folder.write(signed, "certificate.json")
    return signed


# ── verifying ────────────────────────────────────────────────────────────────────────────────────────────────────────

@dataclass(frozen=True)
class Verification:
    """What holds of a certificate, each thing apart."""

    signature: Literal["right", "wrong", "unsigned"]
    signed_by: Literal["this workspace", "the key given", "another key", "nobody"]
    public_key: str
    signed_at: str
    why: str                    # of an unsigned one
    changed: list[str]          # files that are not what was signed
    missing: list[str]          # files that were signed and are gone
    added: list[str]            # files beside the model's that were not signed: a loader may read them
    compared: int               # files whose hashes the certificate has
    scores: list[str]           # what does not follow from the predictions, a sentence each
    not_recomputed: list[str]   # scores that the kept files do not tell, such as seconds
    goal: list[str]             # how the goal differs from the recipe's, a sentence each

    @property
    def ok(self) -> bool:
        """Whether all of it holds, by a key that the reader has reason to trust."""
        known = self.signed_by in ("this workspace", "the key given")
        flaws = (self.changed, self.missing, self.added, self.scores, self.goal)
        return self.signature == "right" and known and bool(self.compared) and not any(flaws)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[tuple[bool | None, str]]:
        """Sentences, each with whether it is good; None for one that only informs."""
        return [*self._of_signature(), *self._of_files(),
                *([(False, text) for text in self.scores] or
                  [(True, "The scores follow from the kept predictions.")]),
                *([(None, f"Not recomputed: {', '.join(self.not_recomputed)}.")] if self.not_recomputed else []),
                *([(False, text) for text in self.goal] or [(True, "The goal is the recipe's.")])]

    def _of_signature(self) -> list[tuple[bool | None, str]]:
        if self.signature == "unsigned":
            return [(False, f"The certificate is unsigned. {self.why}".strip())]
        if self.signature == "wrong":
            return [(False, "The signature is wrong: the certificate is not what was signed.")]
        told = f"The certificate is what was signed at {self.signed_at} by {self.signed_by}, {self.public_key}."
        if self.signed_by == "another key":
            return [(True, told), (False, "Anyone can make a key: find out whose that is, then give it with --key.")]
        return [(True, told)]

    def _of_files(self) -> list[tuple[bool | None, str]]:
        told = [*(f"{name} is not the file that the certificate was made from." for name in self.changed),
                *(f"{name} is missing." for name in self.missing),
                *(f"{name} was not there when the certificate was made." for name in self.added)]
        if not self.compared:
            return [(False, "The certificate names no files, so none can be compared.")]
        return [(False, text) for text in told] or [(True, "The files are those that the certificate was made from.")]


def verify(folder: Path, key: Path | None = None) -> Verification:
    """Check the certificate of a run folder; `key` is a file with the public key of who should have signed.

    Raises a UserError where there is no certificate, a key cannot be read, or cryptography is missing.
    """
    certificate = _read_certificate(folder / "certificate.json")
    given = _shown(read_public(key)) if key else None
    try:
        signature = Signature.model_validate(certificate.get("signature", {"algorithm": None, "files": {}}))
        state: Any = "unsigned" if signature.algorithm is None else _state(certificate, signature)
    except ValidationError:
        signature, state = Signature(algorithm=None, files={}), "wrong"
    changed, missing = _files(folder, signature.files)
    added = [path.relative_to(folder).as_posix() for path in sorted(_model_files(folder))]
    wrong, unknown = _scores(folder, certificate)
    return Verification(
        state, "nobody" if state != "right" else _signer(signature.public_key, given), signature.public_key,
        signature.signed_at, signature.why, changed, missing,
        [name for name in added if name not in signature.files] if signature.files else [], len(signature.files),
        [*wrong, *_people(folder, certificate)], unknown, _goal(folder, certificate))


def _read_certificate(path: Path) -> dict[str, Any]:
    """Strictly: a key given twice could show one value to a person and another to us."""
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key is given twice")
        return found

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    if not path.is_file():
        raise UserError(f"{path.parent} has no certificate.", fix="finish the run: tuneloop run --resume RUN")
    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=once, parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no certificate.", wanted="a JSON object")
    return found


def _state(certificate: dict[str, Any], signature: Signature) -> Literal["right", "wrong"]:
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature

    signed = {key: value for key, value in certificate["signature"].items() if key != "value"}
    try:
        _public(signature.public_key).verify(base64.b64decode(signature.value, validate=True),
                                             canonical(certificate | {"signature": signed}))
    except (InvalidSignature, ValueError):
        return "wrong"
    return "right"


def _signer(public_key: str, given: str | None) -> Literal["this workspace", "the key given", "another key"]:
    if given is not None:
        return "the key given" if public_key == given else "another key"
    return "this workspace" if public_key == _workspace_public() else "another key"


def _files(folder: Path, signed: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of files that changed, and of those that are gone or would lie outside the folder."""
    changed, missing = [], []
    for name, sha256 in signed.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            missing.append(name)
        elif digest(path) != sha256:
            changed.append(name)
    return changed, missing


def _goal(folder: Path, certificate: dict[str, Any]) -> list[str]:
    """A difference between the goal judged by and the one declared in the recipe."""
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        declared = Goal.model_validate(recipe.get("goal") or {})
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return ["The goal of recipe.yaml cannot be read."]
    try:
        judged = Goal.model_validate(certificate.get("goal"))
    except ValidationError:
        return ["The certificate has no goal."]
    before, after = declared.model_dump(), judged.model_dump()
    return [f"goal.{name} is {after[name]} in the certificate, and {before[name]} in the recipe."
            for name in before if before[name] != after[name]]


def _people(folder: Path, certificate: dict[str, Any]) -> list[str]:
    """Whether what people said of blind pairs follows from their judgements."""
    told = certificate.get("blind")
    if not isinstance(told, dict):
        return []
    try:
        found = blind.judged_in(RunFolder(folder)) or {}
    except UserError as error:
        return [f"The blind pairs cannot be counted again: {error.found}"]
    said = ("wins", "losses", "judged", "verdicts", "win_rate", "verdict")
    return [] if all(told.get(key) == found.get(key) for key in said) else [
        "What people said of blind pairs does not follow from their judgements."]


def _scores(folder: Path, certificate: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What of the scores and differences does not follow from the predictions, and what they cannot tell."""
    try:
        rows = [json.loads(line) for line in (folder / PREDICTIONS).read_text("utf-8").split("\n") if line]
        references = [str(row["reference"]) for row in rows]
        scores: dict[str, dict[str, float]] = {
            model: {name: float(score["value"]) for name, score in of.items()}
            for model, of in certificate["scores"].items()}
        texts = {model: [str(row["answers"][model]) for row in rows] for model in scores}
        gains = [(d["metric"], d["from"], d["to"], float(d["value"])) for d in certificate["differences"]]
        told = [] if certificate["test_rows"] == len(rows) else [
            f"The certificate speaks of {certificate['test_rows']} test rows, and there are {len(rows)} predictions."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"The scores cannot be recomputed: {type(error).__name__}: {error}."], []
    found = {(model, name): value for model, of in scores.items()
             for name, value in _recomputed(folder, model, list(of), references, texts[model])}
    told += [f"{name} of {model} is {value!r} in the certificate, and {found[model, name]!r} by the predictions."
             for model, of in scores.items() for name, value in of.items()
             if (model, name) in found and not _same(value, found[model, name])]
    for name, start, to, value in gains:
        if (start, name) in found and (to, name) in found and not _same(value, found[to, name] - found[start, name]):
            told.append(f"{name} of {to} − {start} is {value!r} in the certificate, and "
                        f"{found[to, name] - found[start, name]!r} by the predictions.")
    return told, [f"{name} of {model}" for model, of in scores.items() for name in of if (model, name) not in found]


def _recomputed(folder: Path, model: str, names: list[str], references: list[str],
                texts: list[str]) -> Iterator[tuple[str, float]]:
    """The metrics of one model that follow from what is kept, over all rows, each once: perplexity, and what looks at
    nothing but texts. So no program that a model wrote is run."""
    import numpy as np

    for name in names:
        if name == PERPLEXITY:
            path = folder / "evaluation" / answers_file(model)
            try:
                kept = read_json(path)
                yield name, float(perplexity(kept["nll"], kept["tokens"])(np.ones((1, len(kept["nll"]))))[0])
            except (UserError, KeyError, TypeError, ValueError):
                continue
        elif name in METRICS and not METRICS[name].view and references:
            try:
                yield name, METRICS[name].value(references, texts)
            except UserError:       # its package is not installed here
                continue


def _same(told: float, found: float) -> bool:
    """To 1e-12 of values near 1, and relative to those above, such as a perplexity of thousands."""
    return math.isclose(told, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
