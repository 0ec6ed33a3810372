"""Any model by what people call it: a short name, a hub id, a folder, a run, an adapter, or a server's URL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.evaluation.cache import Cached
from tuneloop.models.aliases import aliases
from tuneloop.models.resolve import Say, resolve
from tuneloop.record import RunFolder, find_runs, read_json
from tuneloop.types import Completion, Request, Sampling, Scored

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend, Progress
    from tuneloop.inference.local import Local
    from tuneloop.methods.base import MethodSpec
    from tuneloop.models.tokenizer import ChatTokenizer

Loaded = tuple[Any, "ChatTokenizer"]
ADAPTER = "adapter_config.json"


class Waiting:
    """A model of this machine that is loaded when it is asked first, and let go by `release`. Implements `Backend`."""

    def __init__(self, name: str, identity: str, load: Callable[[], Loaded]) -> None:
        self.name, self.identity, self._load = name, identity, load
        self._local: Local | None = None

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        return self.load().generate(requests, sampling, progress=progress)

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        return self.load().stream(request, sampling)

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        return self.load().score(requests, answers, progress=progress)

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        return self.load().score_texts(texts, progress=progress)

    def release(self) -> None:
        """Give the memory back; the next question loads the model again."""
        self._local = None

    def load(self) -> Local:
        """The model in memory, which takes seconds to minutes the first time."""
        if self._local is None:
            from tuneloop.inference.local import Local, in_use

            model, tokenizer = self._load()
            self._local = Local(model, tokenizer, name=self.name, identity=self.identity, adapter=in_use(model))
        return self._local


@contextmanager
def asking(backend: Backend, folder: Path | None = None) -> Iterator[Cached]:
    """A model whose answers are kept by content, in the user's cache folder unless given; one of this machine is loaded
    only for answers that are not there, and lets go of its memory afterwards.
    """
    waits = backend if isinstance(backend, Waiting) else None
    cached = Cached(backend, folder, **({"prepare": waits.load} if waits else {}))
    try:
        yield cached
    finally:
        cached.close()
        if waits:
            waits.release()


def open_any(called: str, runs: Path, *, base: str | None = None, key_env: str = "", template_of: str = "",
             name: str = "", say: Say = lambda _: None) -> Backend:
    """The model that is `called` so. Weights are not loaded before it is asked; a server is asked whether it is there.

    `base` is that of adapters which name none; `key_env` the environment variable with a server's key, and
    `template_of` a base with the chat template of its model.
    """
    name = name or short_name(called)
    if called.startswith(("http://", "https://")):
        return _remote(called, name, key_env, template_of, say)
    if run := run_called(called, runs):
        return _tuned(run, name, say)
    if (Path(called) / ADAPTER).is_file():
        return _adapted(Path(called), name, base, say)
    return open_base(called, name, say)


def short_name(called: str) -> str:
    """How tables name a model: the last part of what it is called."""
    last = called.partition("#")[2] or called.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return last or called


def run_called(called: str, runs: Path) -> RunFolder | None:
    """The run of this name or folder, or the newest for 'latest'; None if it is none."""
    if called == "latest":
        found = find_runs(runs)
        if not found:
            raise UserError(f"There are no runs in {runs}.", fix="`tuneloop run recipe.yaml` makes one")
        return found[0]
    places = [Path(called), runs / called]
    return next((RunFolder(path) for path in places if (path / "recipe.yaml").is_file()), None)


def open_base(called: str, name: str, say: Say = lambda _: None) -> Waiting:
    """A base as it is."""
    folder = resolve(called, Path.cwd(), say=say).path

    def load() -> Loaded:
        from tuneloop.models.load import load_model
        from tuneloop.models.tokenizer import ChatTokenizer

        return load_model(folder), ChatTokenizer(folder)

    return Waiting(name, identity_of(folder, folder), load)


def _adapted(folder: Path, name: str, base: str | None, say: Say) -> Waiting:
    """A base with an adapter in PEFT's layout."""
    from tuneloop.adapters import require_same_base

    named = base or read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not named:
        raise UserError(f"The adapter {folder} names no base.", fix="name it with --base")
    short = next((alias.name for alias in aliases().values() if alias.hub == named), named)     # may be in the cache
    path = resolve(short, Path.cwd(), say=say).path
    require_same_base(folder, path)

    def load() -> Loaded:
        from peft import PeftModel

        from tuneloop.models.load import load_model
        from tuneloop.models.resolve import TOKENIZERS
        from tuneloop.models.tokenizer import ChatTokenizer

        model = PeftModel.from_pretrained(load_model(path), folder).requires_grad_(False).eval()
        has_own = any((folder / file).is_file() for file in TOKENIZERS)
        return model, ChatTokenizer(folder if has_own else path)

    return Waiting(name, identity_of(path, path, folder), load)


def _tuned(run: RunFolder, name: str, say: Say) -> Waiting:
    """The result of a run."""
    from tuneloop.recipe import load as load_recipe
    from tuneloop.session import open_run, trained_folder

    recipe = load_recipe(run.file("recipe.yaml"), run_own_code=False)
    artefact = trained_folder(run, recipe.method)
    whole = recipe.method.artefact != "adapter"     # which needs no base
    base = artefact if whole else resolve(recipe.base, recipe.root, say=say).path
    return Waiting(name, identity_of_tuned(base, artefact, recipe.method), lambda: open_run(run))


def _remote(called: str, name: str, key_env: str, template_of: str, say: Say) -> Backend:
    from tuneloop.evaluation.contenders import template
    from tuneloop.inference.remote import Remote
    from tuneloop.models.tokenizer import ChatTokenizer

    url, _, model = called.partition("#")
    known = template(ChatTokenizer(resolve(template_of, Path.cwd(), say=say).path)) if template_of else None
    remote = Remote(url, model, key_env, template=known)
    remote.check()
    remote.name = name if model else remote.model
    return remote


def identity_of_tuned(base: Path, artefact: Path, method: MethodSpec) -> str:
    """The same of what a method trained: an adapter on its base, or a whole model."""
    whole = method.artefact != "adapter"
    return identity_of(artefact if whole else base, artefact, *([] if whole else [artefact]), more=loaded_as(method))


def loaded_as(method: MethodSpec) -> str:
    """How a method has its base loaded: a quantised one answers differently."""
    return str(sorted(method.load_options().items()))


def identity_of(base: Path, tokenizer: Path, *adapters: Path, more: str = "") -> str:
    """Everything that answers depend on: weights, adapter, tokenizer and template, precision, and the code."""
    from tuneloop.data.token_cache import identity
    from tuneloop.models.load import device, precision
    from tuneloop.models.shape import weights_sha256
    from tuneloop.models.tokenizer import ChatTokenizer

    has_own = (tokenizer / "tokenizer_config.json").is_file()
    template = identity(ChatTokenizer(tokenizer if has_own else base)) or b""
    parts = [weights_sha256(base), *map(_folder_sha256, adapters), template.hex(), str(precision()), device().type,
             *(version(package) for package in ("tuneloop", "torch", "transformers")), more]
    return "local:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _folder_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
