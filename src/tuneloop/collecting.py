"""`tuneloop collect`: which prompts, of which models, and the file as a version of data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.any_model import Waiting, asking, open_any, open_base, short_name
from tuneloop.data.flaws import flaw_errors
from tuneloop.data.read import read_table
from tuneloop.data.recognise import choose
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.rows import VersionRow
from tuneloop.data.versions.store import Provenance, Store
from tuneloop.errors import UserError, raise_all
from tuneloop.people.collect import Asking, Collected, collect, unique
from tuneloop.types import Conversation, Origin, Preference, Prompt, Ranked, Sample, Text

if TYPE_CHECKING:
    from tuneloop.data.versions.manifest import Manifest
    from tuneloop.evaluation.cache import Cached
    from tuneloop.inference.backend import Backend
    from tuneloop.recipe import Recipe
    from tuneloop.training.watch import Watcher

BASE = "base"           # the recipe's


@dataclass(frozen=True)
class Prompts:
    """What models are asked, and what was left out."""

    prompts: list[Prompt]
    notes: list[str]
    version: str = ""       # the id of all rows that were read, where a recipe names them


def prompts_of(recipe: Recipe, source: str | None, count: int | None) -> Prompts:
    """The prompts of a recipe's training rows: never of those that it holds out, so that a model which learns from the
    answers can be judged on them. Of another `source` all.

    Raises a UserError where there is none.
    """
    if source is None:
        samples, version = _trained_on(recipe)
    else:
        samples, version = _samples(source, Path.cwd(), recipe.data.system), ""
    notes: Counter[str] = Counter()
    found = [prompt for sample in samples if (prompt := _prompt(sample, notes)) is not None]
    if not found:
        raise UserError(f"{source or recipe.data.train} has no prompt that can be answered"
                        f"{''.join(f'; {n:,} rows {what}' for what, n in notes.items())}.", wanted="rows with a prompt")
    chosen = unique(found, count, recipe.seed)
    told = [f"{n:,} rows were left out: they {what}" for what, n in notes.items()]
    return Prompts(chosen, told, version)


def _prompt(sample: Sample, notes: Counter[str]) -> Prompt | None:
    if isinstance(sample, Text):
        notes["are plain text, which asks nothing"] += 1
    elif isinstance(sample, Conversation) and sample.tools:
        notes["offer tools, and answers that call them cannot be judged here"] += 1
    elif any(turn.media for turn in sample.prompt):
        notes["show images, sounds or films"] += 1
    else:
        return Prompt(sample.prompt, (), sample.origin)
    return None


def _trained_on(recipe: Recipe) -> tuple[list[Any], str]:
    """The rows that a run of the recipe trains on. Rows without answers are held out for nothing: all of them."""
    from tuneloop.data.prepare import prepare
    from tuneloop.models.resolve import resolve
    from tuneloop.models.tokenizer import ChatTokenizer

    data = recipe.data
    train = _samples(data.train, recipe.root, data.system, data.prompt, data.answer)
    kinds = {type(sample) for sample in train}
    if kinds <= {Prompt, Text}:
        held_out = {sample.prompt for name in (data.validation, data.test) if name
                    for sample in _samples(name, recipe.root, data.system, data.prompt, data.answer)}
        return [sample for sample in train if sample.prompt not in held_out], ""
    own = data.model_copy(update={"mix": (), "canaries": 0,
                                  "fix": tuple(fix for fix in data.fix if not fix.only_training)})
    tokenizer = ChatTokenizer(resolve(recipe.base, recipe.root).path)
    kind = next(Preference if kind is Ranked else kind for kind in map(type, train) if kind not in (Prompt, Text))
    rows = prepare(own, recipe.root, tokenizer, tokenizer.max_length, recipe.seed, kind, recipe.given["data"])
    return rows.train, rows.versions["train"]


def _samples(source: str, root: Path, system: str | None, prompt: str | None = None,
             answer: str | None = None) -> list[Any]:
    """Every row of a source, whatever its kind. Raises a UserError with all that cannot be read."""
    table = read_table(source, root)
    made = choose(table, prompt=prompt, answer=answer, system=system).make_all(table.rows)
    raise_all(flaw_errors(made.flaws))
    return [sample for _, sample in made.rows]


def open_models(recipe: Recipe, called: Sequence[str], runs: Path, key_env: str, watch: Watcher) -> dict[str, Backend]:
    """By the name that the answers carry. Raises a UserError for one that is named twice, or not there."""
    found: dict[str, Backend] = {}
    for name in called:
        short = BASE if name == BASE else short_name(name)
        if short in found:
            raise UserError(f"{short} is named twice.", fix="name each model once")
        found[short] = open_base(recipe.portable_model(recipe.base), BASE, watch.say) if name == BASE else open_any(
            name, runs, key_env=key_env, say=watch.say)
    return found


def run(recipe: Recipe, prompts: Prompts, models: dict[str, Backend], how: Asking, out: Path,
        watch: Watcher) -> Collected:
    """Ask. One model is in memory at a time."""
    with ExitStack() as stack:
        kept: dict[str, Cached] = {name: stack.enter_context(asking(model)) for name, model in models.items()}

        def release(name: str) -> None:
            model = models[name]
            if isinstance(model, Waiting):
                model.release()

        return collect(prompts.prompts, kept, how, out, watch, release)


def keep(out: Path, name: str, prompts: Prompts, models: dict[str, Backend], how: Asking, store: Store) -> Manifest:
    """The collected file as a version, which says what it was made from and how."""
    from tuneloop.data.read import open_source
    from tuneloop.people.questions import prompt_id

    source = open_source(out.name, out.parent, str(out))
    known = {prompt_id(one.prompt): one.origin for one in prompts.prompts}
    rows = [VersionRow(row.values, known.get(row.values.get("id", ""), Origin(str(out), row.line)))
            for row in source.rows()]
    asked = f"--n {how.n} --temperature {','.join(map(str, how.temperatures))}"
    step = {"what": f"collect --models {','.join(models)} {asked}", "rows_before": len(prompts.prompts),
            "rows_after": len(rows), "log": [],
            "fix": {"kind": "collect", "models": {name: model.identity for name, model in models.items()},
                    "n": how.n, "temperatures": list(how.temperatures), "top_p": how.top_p,
                    "max_new_tokens": how.max_new_tokens, "seed": how.seed}}
    return store.add(rows, Provenance(name, str(out), "each row is a prompt with answers that models gave",
                                      [prompts.version] if prompts.version else [], [FileState.of(out, str(out))],
                                      [step]))

