"""Answers of models for people to judge: n to each prompt, with their log-probs, into a file that grows line by line.

The file's format stands in `people.questions`. Every answer has a seed of its own, from its prompt and number, so that
more prompts change nothing about those that were asked. A line is written when all models have answered its prompt; who
starts again finds finished lines in the file and the other answers in the cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.data.formats.writers import WRITERS
from tuneloop.errors import UserError
from tuneloop.people.questions import different, digest, prompt_id
from tuneloop.types import Completion, Prompt, Request, Rollout, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuneloop.inference.backend import Backend
    from tuneloop.training.watch import Watcher

PROMPTS_AT_ONCE = 16
SEED_BITS = 32


@dataclass(frozen=True)
class Asking:
    """How each model is asked: `n` times, by the temperatures in turn. Raises a UserError for what cannot be."""

    n: int = 4
    temperatures: tuple[float, ...] = (1.0,)
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < len(self.temperatures):
            raise UserError(f"{self.n} answers of each model cannot have {len(self.temperatures)} temperatures.",
                            fix=f"--n {len(self.temperatures)} or more, or fewer temperatures")

    def samplings(self, prompt: str) -> list[Sampling]:
        """One for each answer to the prompt of this id. Without randomness one is enough."""
        each = [self.temperatures[i % len(self.temperatures)] for i in range(self.n)]
        return [Sampling(self.max_new_tokens, t, self.top_p, int(digest(self.seed, prompt, i), 16) % 2**SEED_BITS)
                for i, t in enumerate(each) if t > 0 or t not in each[:i]]


@dataclass
class Collected:
    """What came of it. `reused` lines were in the file before."""

    prompts: int = 0
    answers: int = 0            # different ones
    same: int = 0
    empty: int = 0
    cut: int = 0                # of the different ones: at max_new_tokens
    alone: int = 0              # prompts with fewer than two different answers: nothing can be compared
    reused: int = 0
    models: list[str] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        kept = len(line["completions"])
        self.prompts += 1
        self.answers += kept
        self.same += line["asked"] - line["empty"] - kept
        self.empty += line["empty"]
        self.cut += sum(not one["stopped"] for one in line["sampled"])
        self.alone += kept < 2

    def lines(self) -> list[str]:
        """For the terminal."""
        found = [f"{self.prompts:,} prompts with {self.answers:,} different answers of {', '.join(self.models)}"]
        found += [f"{self.reused:,} of them were there before"] * bool(self.reused)
        for count, what in ((self.same, "answers that are the same as another, and count once"),
                            (self.empty, "answers that said nothing, and are left out"),
                            (self.cut, "answers that were cut at the most new tokens"),
                            (self.alone, "prompts with fewer than two different answers, where nothing can be compared "
                             "(ask more often, or at a higher temperature)")):
            found += [f"{what}: {count:,}"] * bool(count)
        return found


def unique(prompts: Sequence[Prompt], count: int | None, seed: int) -> list[Prompt]:
    """The different prompts, or `count` of them at random: fewer are always among more."""
    found: dict[str, Prompt] = {}
    for one in prompts:
        found.setdefault(prompt_id(one.prompt), one)
    drawn = set(sorted(found, key=lambda name: digest(seed, name))[:count])
    return [one for name, one in found.items() if name in drawn]


def collect(prompts: Sequence[Prompt], models: Mapping[str, Backend], asking: Asking, out: Path, watch: Watcher,
            finished: Callable[[str], None] = lambda name: None) -> Collected:
    """Ask every model, and write `out`. The models keep their answers: all but the last are asked twice, the second
    time for what they said. `finished` is called when a model need not be in memory any more.
    """
    settings = digest(asdict(asking), {name: model.identity for name, model in models.items()})
    result = Collected(models=list(models))
    with _writing(out):
        there = _lines(out, settings)
        left = [one for one in prompts if prompt_id(one.prompt) not in there]
        result.reused = len(prompts) - len(left)
        *others, last = models
        for name in others:
            watch.stage(name, len(left) * len(asking.samplings("")))
            for chunk in _chunks(left):
                _ask(models[name], chunk, asking, watch)
            finished(name)
        watch.stage(last, len(left) * len(asking.samplings("")))
        for chunk in _chunks(left):
            said = {name: _ask(models[name], chunk, asking, watch if name == last else None) for name in models}
            fresh = [_line(one, {name: of[i] for name, of in said.items()}, asking, settings)
                     for i, one in enumerate(chunk)]
            _append(out, fresh)
            there |= {prompt_id(one.prompt): line for one, line in zip(chunk, fresh, strict=True)}
        finished(last)
    for one in prompts:
        result.add(there[prompt_id(one.prompt)])
    return result


def _chunks(prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    return (prompts[low:low + PROMPTS_AT_ONCE] for low in range(0, len(prompts), PROMPTS_AT_ONCE))


def _ask(model: Backend, prompts: Sequence[Prompt], asking: Asking, watch: Watcher | None) -> list[list[Completion]]:
    """For each prompt the model's answers."""
    each = [(Request(one.prompt, (), (one.origin.row,)), asking.samplings(prompt_id(one.prompt))) for one in prompts]
    answers = iter(model.generate([request for request, of in each for _ in of], [s for _, of in each for s in of],
                                  progress=watch.advance if watch else None))
    return [[next(answers) for _ in of] for _, of in each]


def _line(prompt: Prompt, said: Mapping[str, Sequence[Completion]], asking: Asking, settings: str) -> dict[str, Any]:
    samplings = asking.samplings(prompt_id(prompt.prompt))
    every = [(name, how, answer) for name, of in said.items() for how, answer in zip(samplings, of, strict=True)]
    spoken = [(name, how, answer) for name, how, answer in every if answer.text.strip()]
    places = different([answer.text for _, _, answer in spoken])
    same: dict[str, list[dict[str, Any]]] = {" ".join(spoken[i][2].text.split()): [] for i in places}
    for i, (name, how, answer) in enumerate(spoken):
        if i not in places:
            same[" ".join(answer.text.split())].append(_how(name, how))
    kept = [spoken[i] for i in places]
    [row] = WRITERS["rollouts"](Rollout(prompt.prompt, tuple(a.text for *_, a in kept), (0.0,) * len(kept),
                                        prompt.origin), lambda what: None)
    return {"prompt": row["prompt"], "completions": row["completions"],
            "sampled": [_how(name, how) | {
                "stopped": answer.stopped, "token_ids": list(answer.token_ids), "logprobs": list(answer.logprobs),
                "same": same[" ".join(answer.text.split())]} for name, how, answer in kept],
            "asked": len(every), "empty": len(every) - len(spoken), "settings": settings,
            "file": prompt.origin.file, "line": prompt.origin.line, "row": prompt.origin.row,
            "id": prompt_id(prompt.prompt)}


def _how(model: str, how: Sampling) -> dict[str, Any]:
    return {"model": model, "temperature": how.temperature, "top_p": how.top_p, "seed": how.seed}


# --- the file --------------------------------------------------------------------------------------------------------


def _lines(out: Path, settings: str) -> dict[str, dict[str, Any]]:
    """The lines that are there, by prompt; one that was cut off is removed."""
    try:
        whole = out.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{out} cannot be read: {error.strerror}.", fix="choose another place with --out") from error
    finished = whole.rpartition(b"\n")[0]
    if len(finished) + 1 < len(whole):
        with open(out, "r+b") as file:
            file.truncate(len(finished) + 1 if finished else 0)
    found: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(finished.split(b"\n") if finished else (), 1):
        try:
            line = json.loads(text)
            name, made_with = line["id"], line["settings"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{out} line {number} is no line of collected answers.",
                            fix="choose another file with --out") from None
        if made_with != settings:
            raise UserError(f"{out} holds answers of other models, or asked in another way.",
                            fix="choose another file with --out; answers that are known are not asked for again")
        found[name] = line
    return found


def _append(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    try:
        with open(out, "a", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.",
                        fix="free disk space, or choose another place with --out; then run the same again") from error


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Hold the file for this process."""
    from filelock import FileLock, Timeout

    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                yield
            finally:
                with suppress(OSError):     # Windows keeps what is held
                    lock.unlink()
    except Timeout:
        raise UserError(f"Another tuneloop is collecting into {out}.", fix="wait for it, or choose another --out"
                        ) from None
