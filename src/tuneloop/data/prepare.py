"""From files to rows that can be trusted: read, recognised, cleaned, rendered, split; or refused, with every reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.data import task as tasks
from tuneloop.data.canaries import canary_rows, check_canaries
from tuneloop.data.clean import conflicts, drop_duplicates, written
from tuneloop.data.columns import column, columns
from tuneloop.data.fixes.base import Tools
from tuneloop.data.flaws import RowError, flaw_errors
from tuneloop.data.groups import by_prompt, preferred, with_probes
from tuneloop.data.leave_out import Cluster, leave_out
from tuneloop.data.load import Loaded, Wanted, load
from tuneloop.data.near.rows import alike
from tuneloop.data.proof import with_tokenizer
from tuneloop.data.render import RenderProblem
from tuneloop.data.report import DataReport, FileReport, Found, label_counts, token_report
from tuneloop.data.spec import DataSpec
from tuneloop.data.split import Keys, draw, split, without_leaks
from tuneloop.data.times import times
from tuneloop.data.token_cache import FILE as TOKENS
from tuneloop.data.token_cache import TokenCache, render_cached
from tuneloop.data.training_rows import Added, for_training
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.seen import UNUSED
from tuneloop.errors import UserError, raise_all
from tuneloop.models import cache
from tuneloop.types import Conversation, Group, Origin, Rated, Rendered, Rollout

if TYPE_CHECKING:
    from tuneloop.models.tokenizer import ChatTokenizer

FEWEST_ROWS = 10
SHOWN_LONG_ROWS = 5
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """The rows of a run, all of one kind of `types.Sample`. `groups[part][i]` are the tokens of row i of that part."""

    train: list[Any]
    validation: list[Any]
    test: list[Any]
    groups: dict[str, list[Group]]
    task: tasks.Task
    labels: list[str]           # sorted; empty for open answers
    report: DataReport
    seen: dict[str, list[Origin]]       # by part, and UNUSED: every row that was read
    versions: dict[str, str]            # by part of a recipe that names a source: the id of all its rows
    files: list[FileState]              # that the rows were read from
    columns: dict[str, list[Any]] = field(default_factory=dict)     # that were asked for: a value for each test row
    items: dict[Origin, Mapping[str, Any]] = field(default_factory=dict)    # where asked for: each row's columns

    @property
    def tokens(self) -> dict[str, list[Rendered]]:
        """For every row of a part the tokens of its answer; of several answers those of the preferred one."""
        return {part: [preferred(row, group) for row, group in zip(getattr(self, part), self.groups[part], strict=True)]
                for part in PARTS}

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of the contents of each part, whatever the order of its rows."""
        return {part: _digest(sorted(map(written, getattr(self, part)))) for part in PARTS}

    @property
    def identity(self) -> dict[str, Any]:
        """What a record holds of the rows, so that it can be told whether they are the same."""
        return {"hashes": self.hashes, "order": self.order, "versions": self.versions,
                "files": [asdict(file) for file in self.files]}

    @property
    def order(self) -> str:
        """sha256 of the rows as they come: what numbers of rows mean."""
        return _digest([written(row) for part in PARTS for row in getattr(self, part)])


def prepare(spec: DataSpec, root: Path, tokenizer: ChatTokenizer, max_length_tokens: int | None, seed: int,
            kind: type[Any] = Conversation, shown: Mapping[str, Any] | None = None,
            wanted: Mapping[str, str] | None = None, *, keep_items: bool = False) -> Rows:
    """All rows that the recipe names, mended, checked, split and rendered as samples of `kind`.

    Paths count from `root`; `shown` has other names for the files of the parts, for people: a resumed run knows its
    files by absolute paths. `max_length_tokens` is what the base or the plan allows; the recipe's own limit may only be
    lower. `wanted` are columns whose values for the test rows are kept, each with the key of the recipe that names it;
    `keep_items` keeps all columns of all rows but those mixed in.
    Raises UserError with all problems of all files at once.
    """
    files = _load(spec, root, kind, shown or {}, tokenizer)
    said = columns(files.get("test", files["train"]), wanted or {})
    task = tasks.decide([item.sample for loaded in files.values() for item in loaded.items], spec.answers)
    removed: dict[str, list[Origin]] = {"empty": [o for loaded in files.values() for o in loaded.dropped]}
    rows = _without_repeats(files, task, removed)
    limit = min((n for n in (max_length_tokens, spec.max_length_tokens) if n is not None), default=None)
    tokens = _render(list(chain(*rows.values())), tokenizer)
    removed["over_length"] = _too_long(tokens, limit, drop=spec.over_length == "drop")
    rows = {part: [row for row in kept if row in tokens] for part, kept in rows.items()}
    against = conflicts(chain(*rows.values()))
    if kind is Rollout:
        rows, tokens = _by_prompt(rows, tokens, removed)
    _check_enough(rows, removed)

    kept, clusters = _without_cluster(spec, _split(spec, rows, files["train"], seed, task), removed, seed)
    _draw_training(spec, kept, removed, seed, task)
    added = for_training(spec, kept, files["train"], root=root, seed=seed, kind=kind, task=task,
                         shown=[source["from"] for source in (shown or {}).get("mix") or ()])
    removed["leaks"] += added.leaks
    removed["made_up"] = added.orphans + [item.origin for part, loaded in files.items() if part != "train"
                                          for item in loaded.made_up]
    tokens |= _render([row for row in added.rows if row not in tokens], tokenizer)
    removed["over_length"] += _too_long(tokens, limit, drop=spec.over_length == "drop")
    own = kept | {"train": [row for row in added.own if row in tokens]}
    kept["train"] = [*own["train"], *(row for row in added.others if row in tokens)]
    if kind is Rollout and added.others:
        together, whole = _by_prompt({"train": kept["train"]}, tokens, removed)
        kept, tokens = kept | together, tokens | whole
    if task == "labels" and len(label_counts(own["train"])) == 1:
        raise UserError(f"All {len(own['train'])} training rows that are left have the label "
                        f'"{own["train"][0].answer}".', wanted="rows of two labels at least",
                        fix="raise data.max_train_rows, or hold out less")
    groups = {part: [tokens[row] for row in kept[part]] for part in PARTS}
    rendered = [branch for part in PARTS for group in groups[part] for branch in group.branches]
    report = replace(_report(files, removed, against, kept, own, rendered, task, added), clusters=clusters)
    if kind is Rated:
        groups = {part: _probed(kept[part], groups[part], kept["train"], tokenizer, limit) for part in PARTS}
    made = Rows(**kept, groups=groups, task=task, report=report, seen=_seen(files, kept, removed),
                versions={part: loaded.identity for part, loaded in files.items()},
                files=[file for loaded in files.values() for file in loaded.files],
                columns={name: [of.get(row.origin) for row in kept["test"]] for name, of in said.items()},
                items={item.origin: item.values for loaded in files.values() for item in loaded.items}
                if keep_items else {},
                labels=sorted(label_counts(chain(*own.values()))) if task == "labels" else [])
    return _with_canaries(made, spec, seed, kind, tokenizer, limit) if spec.canaries else made


Files = dict[str, Loaded]           # by part
Kept = dict[str, list[Any]]         # by part


def _load(spec: DataSpec, root: Path, kind: type[Any], shown: Mapping[str, Any], tokenizer: ChatTokenizer) -> Files:
    wanted = Wanted(kind, spec.prompt, spec.answer, spec.system, spec.drop_empty,
                    tools=lambda again: with_tokenizer(Tools(again), tokenizer))
    fixes = [fix for fix in spec.fix if not fix.only_training]
    files: Files = {}
    problems = []
    for part in PARTS:
        name: str | None = getattr(spec, part)
        if name is None:
            continue
        try:
            files[part] = load(name, root, str(shown.get(part) or name), wanted, fixes)
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    return files


def _without_repeats(files: Files, task: tasks.Task, removed: dict[str, list[Origin]]) -> Kept:
    """The rows of each file without exact duplicates and without what a file with a later purpose asks too."""
    rows: Kept = {}
    removed |= {"duplicates": [], "leaks": []}
    for part in reversed(files):
        found: list[Any] = [item.sample for item in files[part].items]
        kept, duplicates = drop_duplicates(map(tasks.with_clean_label, found) if task == "labels" else found)
        kept, leaks = without_leaks(kept, list(chain(*rows.values())))
        removed["duplicates"] += duplicates
        removed["leaks"] += [row.origin for row in leaks]
        if leaks and not kept:
            raise UserError(f"Every prompt of {files[part].table.file} (data.{part}) is also in the rows held out.",
                            wanted="different rows in the files of train, validation and test")
        rows[part] = kept
    return rows


def _render(rows: Sequence[Any], tokenizer: ChatTokenizer) -> dict[Any, Group]:
    with closing(TokenCache(cache.root() / TOKENS)) as kept:
        rendered = render_cached(rows, tokenizer, kept)
    raise_all(flaw_errors([(problem.origin, RowError(problem.message, "Such a row cannot be trained on; remove it, or"))
                           for problem in rendered if isinstance(problem, RenderProblem)]))
    return {row: group for row, group in zip(rows, rendered, strict=True) if isinstance(group, Group)}


def _probed(rows: list[Rated], groups: list[Group], train: list[Rated], tokenizer: ChatTokenizer,
            limit: int | None) -> list[Group]:
    """With answers of other rows of the part; a lone row with that of a training row."""
    return with_probes(rows, groups, rows if len(rows) > 1 else train, tokenizer, limit)


def _with_canaries(rows: Rows, spec: DataSpec, seed: int, kind: type[Any], tokenizer: ChatTokenizer,
                   limit: int | None) -> Rows:
    """The same with the rows of data.canaries behind the training rows, which nothing else knows of."""
    check_canaries(kind, writes=True)
    planted = canary_rows(spec.canaries, seed, kind, spec.system)
    groups = list(_render(planted, tokenizer).values())
    longest = max(len(branch) for group in groups for branch in group.branches)
    if limit is not None and longest > limit:
        raise UserError(f"A row of data.canaries has {longest:,} tokens, and rows may have {limit:,}.",
                        fix="raise data.max_length_tokens if the base allows it, or leave data.canaries out")
    if kind is Rated:
        groups = _probed(planted, groups, rows.train, tokenizer, limit)
    return replace(rows, train=[*rows.train, *planted], report=replace(rows.report, canaries=len(planted)),
                   groups=rows.groups | {"train": [*rows.groups["train"], *groups]})


def _too_long(tokens: dict[Any, Group], limit: int | None, *, drop: bool) -> list[Origin]:
    """Take rows longer than `limit` out of `tokens`, or raise UserError that names them: an answer is never cut."""
    lengths = {row: max(map(len, group.branches)) for row, group in tokens.items()}
    long = [] if limit is None else [(row, n) for row, n in lengths.items() if n > limit]
    if long and not drop:
        first = ", ".join(f"{row.origin} ({n:,} tokens)" for row, n in long[:SHOWN_LONG_ROWS])
        more = ", …" if len(long) > SHOWN_LONG_ROWS else ""
        count = "1 row is" if len(long) == 1 else f"{len(long):,} rows are"
        raise UserError(f"{count} longer than {limit:,} tokens: {first}{more}.",
                        wanted="rows that fit whole, since an answer is never cut",
                        fix="shorten them, raise data.max_length_tokens if the base allows it, or leave them out with "
                            "data.over_length=drop")
    for row, _ in long:
        del tokens[row]
    return [row.origin for row, _ in long]


def _by_prompt(rows: Kept, tokens: dict[Any, Group], removed: dict[str, list[Origin]]) -> tuple[Kept, dict[Any, Group]]:
    """Rollouts of one prompt as one, each part for itself."""
    whole = {part: by_prompt({row: tokens[row] for row in kept}) for part, kept in rows.items()}
    removed.setdefault("put_together", []).extend(origin for _, origins in whole.values() for origin in origins)
    return ({part: list(groups) for part, (groups, _) in whole.items()},
            {row: group for groups, _ in whole.values() for row, group in groups.items()})


def _check_enough(rows: Kept, removed: dict[str, list[Origin]]) -> None:
    for part, kept in rows.items():
        if not kept:
            raise UserError(f"No usable row is left in data.{part}.", wanted=f"at least {FEWEST_ROWS} rows in all")
    count = sum(map(len, rows.values()))
    if count < FEWEST_ROWS:
        gone = ", ".join(f"{len(origins)} {why.replace('_', '-')}" for why, origins in removed.items() if origins)
        raise UserError(f"There are only {count} usable rows{f' (removed: {gone})' if gone else ''}.",
                        wanted=f"at least {FEWEST_ROWS}; a few hundred for a result that can be trusted")


def _split(spec: DataSpec, rows: Kept, own: Loaded, seed: int, task: tasks.Task) -> Kept:
    """Whatever has no file of its own is split off from train; what asks nearly the same stays together."""
    asked = spec.split
    validation, test = 0 if spec.validation else asked.validation, 0 if spec.test else asked.test
    together: list[Keys] = [alike(rows["train"])] if validation or test else []
    if asked.group:
        together.append(column(own, asked.group, "data.split.group"))
    newest = times(column(own, asked.time, "data.split.time"), asked.time) if asked.time else None
    parts = split(rows["train"], validation, test, seed=seed, labels=task == "labels", together=together, times=newest)
    return {"train": parts.train, "validation": rows.get("validation", parts.validation),
            "test": rows.get("test", parts.test)}


def _without_cluster(spec: DataSpec, kept: Kept, removed: dict[str, list[Origin]],
                     seed: int) -> tuple[Kept, list[Cluster]]:
    """The parts as data.split.leave_out asks, and all clusters."""
    if spec.split.leave_out is None:
        return kept, []
    kept, removed["left_out"], found = leave_out(kept, spec.split.leave_out, seed)
    return kept, found


def _draw_training(spec: DataSpec, kept: Kept, removed: dict[str, list[Origin]], seed: int, task: tasks.Task) -> None:
    """As data.max_train_rows asks."""
    if spec.max_train_rows is not None:
        drawn = draw(kept["train"], spec.max_train_rows, seed=seed, labels=task == "labels")
        removed["not_drawn"] = [row.origin for row in kept["train"] if row not in drawn]
        kept["train"] = [row for row in kept["train"] if row in drawn]
    if not kept["train"]:
        raise UserError(f"No training row is left with data.max_train_rows={spec.max_train_rows}: rows that share a "
                        "prompt are drawn together.", fix="set it higher")


def _seen(files: Files, kept: Kept, removed: Mapping[str, Sequence[Origin]]) -> dict[str, list[Origin]]:
    """Rows put together with others of their prompt count as trained on, whatever became of those. Rows that a fix left
    out were read too.
    """
    seen = {part: [row.origin for row in rows] for part, rows in kept.items()}
    seen["train"] += removed.get("put_together", [])
    seen[UNUSED] = [o for why, origins in removed.items() if why != "put_together" for o in origins]
    known = set(chain(*seen.values()))
    seen[UNUSED] += [origin for loaded in files.values() for origin in loaded.read if origin not in known]
    return seen


def _report(files: Files, removed: dict[str, list[Origin]], against: list[list[Origin]], kept: Kept, own: Kept,
            rendered: list[Rendered], task: tasks.Task, added: Added) -> DataReport:
    everything = list(chain(*kept.values()))
    is_labels = task == "labels"
    return DataReport(
        files=[FileReport(part, loaded.table.file, loaded.table.kind, len(loaded.table.rows), loaded.sentence,
                          loaded.table.notes) for part, loaded in files.items()],
        mended=[step.to_json() for step in chain(*(loaded.steps for loaded in files.values()), added.steps)],
        mixed=[str(mixed) for mixed in added.mixed],
        removed={why: Found.at(origins) for why, origins in removed.items()},
        conflicts=Found.at([group[0] for group in against]),
        judged=not isinstance(everything[0], Conversation),
        split={part: len(kept[part]) for part in PARTS},
        task=task,
        labels={part: label_counts(own[part]) if is_labels else _verdicts(kept[part]) for part in PARTS}
        if is_labels or isinstance(everything[0], Rated) else {},
        warnings=[*tasks.spelling_warnings(list(chain(*own.values()))), *_unseen_labels(own)] if is_labels else
        _without_contrast(everything),
        **token_report(rendered),
    )


def _verdicts(rows: Sequence[Rated]) -> dict[str, int]:
    liked = sum(row.desirable for row in rows)
    return {"liked": liked, "not liked": len(rows) - liked}


def _without_contrast(rows: Sequence[Any]) -> list[str]:
    alike = [row for row in rows if isinstance(row, Rollout) and not row.has_contrast]
    return [f"prompts whose answers all have the same reward: {Found.at([row.origin for row in alike])}; objectives "
            "that compare them (grpo, rloo) learn nothing there"] if alike else []


def _unseen_labels(kept: Kept) -> list[str]:
    known = label_counts(kept["train"])
    unseen = {label: part for part in PARTS for label in label_counts(kept[part]) if label not in known}
    return [f'the label "{label}" occurs in {part} and never in train, so it cannot be learned'
            for label, part in unseen.items()]


def _digest(said: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(said).encode()).hexdigest()
