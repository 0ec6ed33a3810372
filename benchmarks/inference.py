"""Generation and labelling on the real base, against transformers and PEFT on the same requests, in turn.

`python benchmarks/inference.py [--repeats 5]`. Before any time is taken, every answer of the engine is held against
`model.generate` with the same adapter, up to the first token where the model's two best are nearly equal. Sides take
turns within a repeat; a figure is the median ratio of the pairs, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuneloop.compute.check import Packing
from tuneloop.data.render import render
from tuneloop.evaluation.asking import ask
from tuneloop.inference.engine import Engine
from tuneloop.inference.local import Local, answer
from tuneloop.models.load import load_model
from tuneloop.models.resolve import resolve
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Message, Origin, Rendered, Request, Sampling

BASE, ADAPTERS, REQUESTS, NEW = "smollm2-135m-instruct", 8, 16, 64
CLOSE = 1e-3        # between the two best logits, greedy decoding may go either way
LABELS = ("shipping", "payment", "returns", "account")
THINGS = ("parcel", "invoice", "refund", "password", "order", "card", "address", "voucher")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000, help="rows to label; transformers labels 64 of them")
    options = parser.parse_args()
    folder = resolve(BASE, Path.cwd()).path
    tokenizer = ChatTokenizer(folder)
    model = with_adapters(load_model(folder, dtype=torch.float32))
    one_pass(model, tokenizer, options.repeats)
    labelling(model, tokenizer, options.repeats, options.rows)
    generation(model, tokenizer, options.repeats)


def with_adapters(base: Any) -> Any:
    """PEFT's LoRA, rank 16 on all linear layers, eight times, each of which changes what is said."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(base, config, adapter_name="a0")
    for i in range(1, ADAPTERS):
        model.add_adapter(f"a{i}", config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.05)        # random matrices of PEFT's own size make gibberish
    return model.requires_grad_(False).eval()


def generation(model: Any, tokenizer: ChatTokenizer, repeats: int) -> None:
    prompts = tokenizer.encode([tokenizer.prompt_text([Message("user", f"{thing} {i}: tell me more")])[-60:]
                                for i, thing in enumerate(THINGS * 2)])
    assert len(prompts) == REQUESTS
    assert max(map(len, prompts)) <= 32
    mixed: list[str | None] = [f"a{i % ADAPTERS}" for i in range(REQUESTS)]
    engine = Engine(model, tokenizer)
    without_end = Without(model)        # every side makes the same number of tokens

    def ours(names: list[str | None]) -> Callable[[], list[tuple[int, ...]]]:
        return lambda: [c.token_ids for c in answer(engine, prompts, Sampling(NEW), names)]

    def sequential() -> list[tuple[int, ...]]:
        found = []
        for prompt, name in zip(prompts, mixed, strict=True):
            model.set_adapter(name)
            found.append(by_transformers(model, tokenizer, [prompt], NEW)[0])
        return found

    def by_peft() -> list[tuple[int, ...]]:
        return by_transformers(model, tokenizer, prompts, NEW, adapter_names=mixed)

    sides = {"sequential": sequential, "PEFT, mixed batch": by_peft, "8 adapters": ours(mixed),
             "1 adapter": ours(["a0"] * REQUESTS), "bare base": ours([None] * REQUESTS)}
    with without_end, engine_without_end(engine):
        found = {name: side() for name, side in sides.items()}
        require_equal(model, prompts, mixed, found["sequential"], found["8 adapters"])
        times = in_turn(sides, repeats)
    base = "8 adapters"
    say(f"16 requests, 8 adapters: sequential generate / ours: {ratio(times['sequential'], times[base])} (goal 5)")
    say(f"16 requests, 8 adapters: PEFT's mixed batch / ours: {ratio(times['PEFT, mixed batch'], times[base])}")
    say(f"16 requests: 8 adapters / 1 adapter, both ours: {ratio(times[base], times['1 adapter'])} (goal 1.15)")
    say(f"16 requests: 1 adapter / bare base, both ours: {ratio(times['1 adapter'], times['bare base'])}")


def by_transformers(model: Any, tokenizer: ChatTokenizer, prompts: list[list[int]], new: int,
                    **options: Any) -> list[tuple[int, ...]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False,
                             pad_token_id=tokenizer.pad_id, temperature=None, top_p=None, top_k=None, **options)
    return [tuple(row[width:].tolist()) for row in out]


class Without:
    """transformers' generation without an end of the turn."""

    def __init__(self, model: Any) -> None:
        self.config = model.get_base_model().generation_config

    def __enter__(self) -> None:
        self.before, self.config.eos_token_id = self.config.eos_token_id, None

    def __exit__(self, *error: object) -> None:
        self.config.eos_token_id = self.before


class engine_without_end:       # noqa: N801
    """The same for the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __enter__(self) -> None:
        self.before, self.engine._stops = self.engine._stops, set()

    def __exit__(self, *error: object) -> None:
        self.engine._stops = self.before


def require_equal(model: Any, prompts: list[list[int]], names: list[str | None], wanted: list[tuple[int, ...]],
                  found: list[tuple[int, ...]]) -> None:
    """Equal up to the first close call of the model's own forward."""
    for prompt, name, theirs, mine in zip(prompts, names, wanted, found, strict=True):
        model.set_adapter(name)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *theirs]])).logits[0, len(prompt) - 1:-1]
        best = logits.topk(2).values
        close = torch.nonzero(best[:, 0] - best[:, 1] < CLOSE).flatten().tolist()
        sure = close[0] if close else len(theirs)
        if theirs[:sure] != mine[:sure]:
            raise SystemExit(f"{name}: {theirs[:sure]} is not {mine[:sure]}")


def say(line: str) -> None:
    print(line, flush=True)


def in_turn(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every side, each repeat in another order."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in np.random.default_rng(repeat).permutation(list(sides)).tolist():
            began = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - began)
    return times


def ratio(one: list[float], other: list[float]) -> str:
    each = [a / b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def labelling(model: Any, tokenizer: ChatTokenizer, repeats: int, count: int) -> None:
    """Rows behind one long instruction: scored labels against generated ones, which is what others do."""
    manual = " ".join(f"{i + 1}. A question about the {thing} of a customer belongs to one of {', '.join(LABELS)}."
                      for i, thing in enumerate(THINGS * 2))
    rows = [Conversation((Message("user", f"{manual}\nQuestion {i}: where is my {THINGS[i % 8]}?"),
                          Message("assistant", LABELS[i % 4])), Origin("rows", i + 1)) for i in range(count)]
    rendered = [r for r in render(rows, tokenizer) if isinstance(r, Rendered)]
    shared = min(int((rendered[0].ids[:len(r)][:200] == r.ids[:200]).sum()) for r in rendered[1:40])
    batch = 64
    model.set_adapter("a0")
    local = Local(model, tokenizer, adapter="a0", packing=Packing("forest", True, ""))
    prompts = [r.ids[:len(r) - len(r.last_answer)].tolist() for r in rendered]
    longest = max(len(r.last_answer) for r in rendered)

    def ours() -> Any:
        return ask(local, [Request(row.prompt) for row in rows], [row.answer for row in rows], LABELS).answers.texts

    def theirs() -> Any:
        return [by_transformers(model, tokenizer, prompts[low:low + 16], longest) for low in range(0, batch, 16)]

    ours()
    theirs()
    times = in_turn({"ours": ours, "theirs": theirs}, repeats)
    scaled = [t * count / batch for t in times["theirs"]]
    say(f"labelling {count} rows, {shared}+ tokens in common, {len(prompts[0])} each: batched generate (16, timed on "
        f"{batch} rows) / ours: {ratio(scaled, times['ours'])} (goal 6)")


def one_pass(model: Any, tokenizer: ChatTokenizer, repeats: int) -> None:
    """The base and an adapter answer the same questions: together, and one after the other."""
    engine = Engine(model, tokenizer)
    prompts = tokenizer.encode([tokenizer.prompt_text([Message("user", f"What about the {thing}?")])
                                for thing in THINGS])

    def apart() -> None:
        for name in ("a0", None):
            answer(engine, prompts, Sampling(NEW), [name] * len(prompts))

    def together() -> None:
        answer(engine, prompts * 2, Sampling(NEW), ["a0"] * len(prompts) + [None] * len(prompts))

    with engine_without_end(engine):
        apart()
        times = in_turn({"apart": apart, "together": together}, repeats)
    say("8 questions to base and adapter: one after the other / in one batch: "
        + ratio(times["apart"], times["together"]))


if __name__ == "__main__":
    main()
