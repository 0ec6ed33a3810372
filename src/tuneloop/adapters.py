"""Many adapters on one base: load, use, combine, swap and remove them, and answer each prompt with its own.

PEFT computes a batch with several adapters rightly for plain LoRA alone: it refuses DoRA in one, and takes layers that
an adapter keeps whole from the active adapter. So plain LoRA adapters share one model; any other adapter gets the base
for itself, and its prompts are answered apart.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.record import read_json, write_json

if TYPE_CHECKING:
    import torch

    from tuneloop.types import Completion, Message, Sampling

BELONGS_TO = "tuneloop.json"        # beside an adapter: which base it was trained on
HOW = ("linear", "cat", "svd", "ties", "ties_svd", "dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd",
       "magnitude_prune", "magnitude_prune_svd")
"""PEFT's combinations: weighted sums of A and B, the exact sum as a larger adapter (cat) or its best approximation
(svd), TIES (arXiv 2306.01708), DARE (arXiv 2311.03099), and pruning by size."""
EQUAL_RANKS = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights that training left in a run's artefact."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin"))


def write_belonging(folder: Path, name: str, sha256: str, parameters: int, method: Any) -> None:
    """Note beside an adapter which base it belongs to."""
    write_json(folder / BELONGS_TO, {"base": {"name": name, "sha256": sha256, "parameters": parameters},
                                     "method": method})


def require_same_base(adapter: Path, base: Path) -> None:
    """Raise a UserError if the adapter says that it was trained on other weights; adapters of other tools say nothing.
    """
    from tuneloop.models.shape import weights_sha256

    if not (adapter / BELONGS_TO).is_file():
        return
    try:
        wanted = read_json(adapter / BELONGS_TO)["base"]
        name, sha256 = str(wanted["name"]), str(wanted["sha256"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{adapter / BELONGS_TO} names no base.", wanted="its name and its sha256") from error
    found = weights_sha256(base)
    if found != sha256:
        raise UserError(f"The adapter {adapter} belongs to another base: it was trained on {name}, whose weights have "
                        f"the sha256 {sha256[:12]}…; those of {base} have {found[:12]}….",
                        wanted="the very weights it was trained on",
                        fix=f"use the base {name} as it was, or train again on this one")


class Adapters:
    """One base in memory, and adapters by name. `None` names the bare base."""

    def __init__(self, base_folder: Path, *, dtype: torch.dtype | None = None) -> None:
        from tuneloop.models.tokenizer import ChatTokenizer

        self.base_folder = base_folder
        self.tokenizer = ChatTokenizer(base_folder)
        self.active: str | None = None
        self._options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        self._folders: dict[str, Path] = {}
        self._live: list[str] = []                      # names of the adapters in `model`, none for the bare base
        self._made = TemporaryDirectory(prefix="tuneloop-adapters-")      # what `combine` made
        self.model: Any = self._fresh_base()

    @property
    def names(self) -> list[str]:
        """Every adapter, in the order they came."""
        return list(self._folders)

    def folder(self, name: str) -> Path:
        """Where an adapter's files are."""
        self._require(name)
        return self._folders[name]

    def load(self, name: str, folder: Path) -> None:
        """Add the adapter in `folder` (PEFT's layout) under a new name; the one in use stays in use."""
        if name in self._folders or not name or "." in name or name.startswith("__"):
            raise UserError(f"An adapter cannot be called '{name}'.",
                            wanted="a new name without dots" if name not in self._folders else "a name not in use",
                            fix="choose another name, or swap the adapter")
        self._check(folder)
        self._folders[name] = folder
        try:
            if self._plain(name) and (not self._live or self._plain(self._live[0])):
                self._put(name)
                self.use(self.active)
        except Exception:       # whatever PEFT raises, a half-loaded adapter must not stay
            self._forget(name)
            raise

    def use(self, name: str | None) -> Any:
        """The model that answers with this adapter, or with none; it is `model`, until the next use."""
        if name is not None:
            self._require(name)
        if name is None:
            self._bare()
        else:
            plain = self._plain(name)
            if name not in self._live:
                if self._live and not (plain and self._plain(self._live[0])):
                    self._clear()
                for one in [n for n in self._folders if self._plain(n)] if plain else [name]:
                    if one not in self._live:
                        self._put(one)
            if plain:       # the bare base may have switched them off
                self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(name)
        self.active = name
        self.model.requires_grad_(False).eval()     # choosing an adapter makes PEFT train it
        return self.model

    def combine(self, new: str, names: Sequence[str], weights: Sequence[float], how: str = "ties", *,
                density: float = 0.5, seed: int = 0) -> None:
        """A new LoRA adapter from others, weighted. `density`: the share of entries that TIES, DARE and pruning keep.
        """
        import torch

        from tuneloop.methods._peft import said_by_peft

        self._check_combination(names, weights, how, density)
        if new in self._folders:
            raise UserError(f"An adapter is called '{new}' already.", wanted="a new name")
        before = self.active
        self.use(names[0])
        torch.manual_seed(seed)         # DARE drops entries at random
        thins = how.startswith(("ties", "dare", "magnitude"))
        with _scaled_once(self.model.peft_config[names[0]]), said_by_peft("combination", f"by {how} fails"):
            self.model.add_weighted_adapter(list(names), list(weights), new, combination_type=how,
                                            **({"density": density} if thins else {}))
        folder = Path(self._made.name) / new
        self.model.save_pretrained(folder, selected_adapters=[new])
        if (folder / new).is_dir():
            shutil.copytree(folder / new, folder, dirs_exist_ok=True)
            shutil.rmtree(folder / new)
        self._folders[new] = folder
        self._live.append(new)
        self.use(before)

    def swap(self, name: str, folder: Path) -> None:
        """Put the adapter in `folder` in the place of one that is loaded: LoRA in place, others by loading again."""
        from tuneloop.inference.routed import is_plain

        self._require(name)
        self._check(folder)
        old, new = self._config(self._folders[name]), self._config(folder)
        if name in self._live and is_plain(old) and is_plain(new) and _same_layout(old, new):
            from peft.utils.hotswap import hotswap_adapter

            before = self.active
            self.use(name)              # hot-swapping compares with the configuration that is active
            hotswap_adapter(self.model, str(folder), name, torch_device=str(self.model.device))
            self.model.peft_config[name] = new
            self._folders[name] = folder
            self.use(before)
            return
        before = self.active
        self._drop(name)
        self._folders[name] = folder
        if before == name:
            self.use(name)

    def remove(self, name: str) -> None:
        """Forget an adapter; if it was in use, the bare base is."""
        self._require(name)
        self._drop(name)
        del self._folders[name]

    def generate(self, prompts: Sequence[Sequence[Message]], names: Sequence[str | None],
                 sampling: Sampling) -> list[Completion]:
        """One answer for each prompt, by its own adapter (None: the bare base), in the order of the prompts."""
        if len(names) != len(prompts):
            raise UserError(f"{len(prompts)} prompts came with {len(names)} names of adapters.",
                            wanted="one name for each prompt")
        for name in names:
            if name is not None:
                self._require(name)
        before = self.active
        done: dict[int, Completion] = {}
        try:
            for group in self._groups(names):
                done |= self._answered(group, prompts, names, sampling)
        finally:
            self.use(before)
        return [done[i] for i in range(len(prompts))]

    def _groups(self, names: Sequence[str | None]) -> Iterator[list[int]]:
        """Rows that one model answers: all of plain LoRA and the bare base together, others by adapter."""
        mixed = [i for i, name in enumerate(names) if name is None or self._plain(name)]
        if mixed:
            yield mixed
        for one in dict.fromkeys(name for name in names if name is not None and not self._plain(name)):
            yield [i for i, name in enumerate(names) if name == one]

    def _answered(self, group: list[int], prompts: Sequence[Sequence[Message]], names: Sequence[str | None],
                  sampling: Sampling) -> dict[int, Completion]:
        from tuneloop.inference.engine import Engine
        from tuneloop.inference.local import answer

        asked = [names[i] for i in group]
        model = self.use(next((name for name in asked if name is not None), None))
        encoded = self.tokenizer.encode([self.tokenizer.prompt_text(prompts[i]) for i in group])
        return dict(zip(group, answer(Engine(model, self.tokenizer), encoded, sampling, asked), strict=True))

    def _fresh_base(self) -> Any:
        from tuneloop.models.load import load_model

        return load_model(self.base_folder, **self._options)

    def _bare(self) -> None:
        """Switch plain LoRA off; for any other adapter the base is loaded anew, as PEFT does not undo all of them."""
        if self._live and self._plain(self._live[0]):
            self.model.base_model.disable_adapter_layers()
        elif self._live:
            self._clear()

    def _clear(self) -> None:
        self.model, self._live = None, []       # free the memory first
        self.model = self._fresh_base()
        self.active = None

    def _put(self, name: str) -> None:
        from peft import PeftModel

        folder = str(self._folders[name])
        try:
            if self._live:
                self.model.load_adapter(folder, adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        except (RuntimeError, ValueError, KeyError) as error:
            self._clear()
            raise UserError(f"The adapter {folder} does not fit the base {self.base_folder}: {str(error)[:200]}",
                            wanted="an adapter that was trained on this base") from error
        self._live.append(name)

    def _drop(self, name: str) -> None:
        if name in self._live:
            rest = [one for one in self._live if one != name]
            if rest:
                self.model.set_adapter(rest[0])
                self.model.delete_adapter(name)
                self._live = rest
                self.use(None if self.active == name else self.active)
            else:
                self._clear()
        if self.active == name:
            self.active = None

    def _forget(self, name: str) -> None:
        del self._folders[name]
        if name in self._live:
            self._clear()

    def _require(self, name: str) -> None:
        if name not in self._folders:
            raise UserError(f"There is no adapter '{name}'.", wanted="one of: " + (", ".join(self._folders) or "none"))

    def _check(self, folder: Path) -> None:
        if not (folder / "adapter_config.json").is_file():
            raise UserError(f"{folder} holds no adapter: it has no adapter_config.json.",
                            wanted="a folder as PEFT saves")
        require_same_base(folder, self.base_folder)

    def _config(self, folder: Path) -> Any:
        from peft import PeftConfig

        from tuneloop.methods import _bottleneck

        _bottleneck.register()      # the adapters that PEFT does not know
        try:
            return PeftConfig.from_pretrained(str(folder))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / 'adapter_config.json'} cannot be read: {error}.",
                            wanted="a configuration of this version of PEFT") from error

    def _plain(self, name: str) -> bool:
        from tuneloop.inference.routed import is_plain

        return is_plain(self._config(self._folders[name]))

    def _check_combination(self, names: Sequence[str], weights: Sequence[float], how: str, density: float) -> None:
        from tuneloop.inference.routed import is_plain

        if how not in HOW:
            raise UserError(f"'{how}' is no way to combine adapters.", wanted="one of " + ", ".join(HOW))
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError("Combining needs two adapters or more, each once.", wanted="their names")
        if len(weights) != len(names) or not all(map(math.isfinite, weights)):
            raise UserError(f"{len(names)} adapters came with the weights {', '.join(map(str, weights)) or 'none'}.",
                            wanted="one finite weight for each adapter")
        if not any(weights):
            raise UserError("Every weight is 0, so that nothing would be left.", wanted="a weight other than 0")
        if not 0 < density <= 1:
            raise UserError(f"The density {density} keeps nothing.", wanted="more than 0, at most 1")
        ranks = {}
        for name in names:
            self._require(name)
            config = self._config(self._folders[name])
            if not is_plain(config):
                raise UserError(f"The adapter {self._folders[name]} is {_called(config)}, which cannot be "
                                "combined.", wanted="plain LoRA adapters")
            ranks[name] = max([config.r, *config.rank_pattern.values()])
        if how in EQUAL_RANKS and len(set(ranks.values())) > 1:
            shown = ", ".join(f"{self._folders[name]} has {rank}" for name, rank in ranks.items())
            raise UserError(f"Combining by {how} needs equal ranks: {shown}.",
                            fix="choose svd or cat, which bear different ranks")


@contextmanager
def _scaled_once(config: Any) -> Iterator[None]:
    """PEFT puts all scales into the matrices of a combination, but takes rsLoRA from the first adapter's `config`."""
    rslora, config.use_rslora = config.use_rslora, False
    try:
        yield
    finally:
        config.use_rslora = rslora


def _same_layout(old: Any, new: Any) -> bool:
    """Whether hot-swapping leaves nothing of the old adapter behind: same layers, same sizes."""
    return all(getattr(old, name) == getattr(new, name) for name in (
        "target_modules", "r", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout", "layers_to_transform",
        "exclude_modules", "fan_in_fan_out"))


def _type(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _called(config: Any) -> str:
    from tuneloop.inference.routed import EXTRAS

    extras = [name for name in EXTRAS if getattr(config, name, None)]
    return _type(config) if _type(config) != "LORA" else "LoRA with " + ", ".join(extras or ["biases"])


def find_adapters(names: Sequence[str], runs: Path, base: str | None) -> tuple[Path, list[Path]]:
    """Folders of adapters, given as such or as runs, and the base: as named, else as the first that names one does."""
    from tuneloop.models.resolve import resolve
    from tuneloop.recipe import load
    from tuneloop.record import RunFolder
    from tuneloop.session import trained_folder

    folders, found = [], None if base is None else resolve(base, Path.cwd()).path
    for name in names:
        path = Path(name) if Path(name).is_dir() else runs / name
        if (path / "adapter_config.json").is_file():
            folders.append(path)
            named = read_json(path / "adapter_config.json").get("base_model_name_or_path")
            found = found or (resolve(named, Path.cwd()).path if named else None)
            continue
        recipe = load(RunFolder.open(path).file("recipe.yaml"), run_own_code=False)
        if recipe.method.artefact != "adapter":
            raise UserError(f"{path} was trained by method {recipe.method.kind}, which leaves no adapter.",
                            wanted="runs of method lora")
        folders.append(trained_folder(RunFolder(path), recipe.method))
        found = found or resolve(recipe.base, recipe.root).path
    if found is None:
        raise UserError("None of these adapters names its base.", fix="name it with --base")
    return found, folders


def write_combined(base: Path, folders: Sequence[Path], weights: Sequence[float], how: str, target: Path, *,
                   density: float = 0.5, seed: int = 0) -> None:
    """Combine the adapters in `folders` and write the result to `target`, whole or not at all, in PEFT's layout."""
    import torch

    from tuneloop.errors import TrainingFailed
    from tuneloop.training.checkpoint import publish

    if target.exists():
        raise UserError(f"{target} exists already.", fix="choose another place with --out")
    adapters = Adapters(base, dtype=torch.float32)
    names = [f"adapter{i + 1}" for i in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        adapters.load(name, folder)
    adapters.combine("combined", names, weights, how, density=density, seed=seed)

    def write(into: Path) -> None:
        shutil.copytree(adapters.folder("combined"), into, dirs_exist_ok=True)
        (into / "README.md").unlink(missing_ok=True)
        config = read_json(folders[0] / "adapter_config.json").get("base_model_name_or_path")
        write_json(into / "adapter_config.json",
                   read_json(into / "adapter_config.json") | {"base_model_name_or_path": config})
        adapters.tokenizer.save(into)
        _note_parts(into, base, str(config), folders, weights, how)

    try:
        publish(target, write)
    except TrainingFailed as error:
        raise UserError(error.found, fix="free disk space, or choose another place with --out") from error


def _note_parts(into: Path, base: Path, name: str, folders: Sequence[Path], weights: Sequence[float],
                how: str) -> None:
    from tuneloop.data.versions.learnt import read_learnt, write_learnt
    from tuneloop.models.shape import read_shape, weights_sha256

    write_learnt(into, frozenset[str]().union(*map(read_learnt, [base, *folders])))
    method = {"kind": "lora", "combined": [str(folder) for folder in folders], "weights": list(weights), "how": how}
    write_belonging(into, name, weights_sha256(base), read_shape(base).parameters, method)
