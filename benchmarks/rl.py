"""Reinforcement learning on a real base, on two CPU cores: does it learn what is rewarded, on prompts not trained on?

`python benchmarks/rl.py [--runs DIR] [--data FOLDER] [--only grpo reward ppo] [--seeds 0 1 2]`.

- grpo: sentences about people; the reward is the share of two keys that the answer, a JSON object alone, has.
- reward: a reward model of the pairs in FOLDER (`hh_rlhf_harmless_test`), against a rule that prefers the shorter.
- ppo: against that reward model, at a bounded divergence.

Every experiment is a `tuneloop run` that can be cut off and goes on. Prints the certificates' figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tuneloop.record import RunFolder

BASE = "smollm2-135m-instruct"
NAMES = ("Anna", "Tomas", "Mei", "Omar", "Lucia", "Jonas", "Priya", "Kofi", "Elena", "Sam", "Yuki", "Pedro")
CITIES = ("Porto", "Lagos", "Oslo", "Kyoto", "Lima", "Turin", "Accra", "Quito", "Ghent", "Riga")
PEOPLE = ("{name} has lived in {city} since {year}.", "In {year} {name} moved to {city} for a new job.",
          "The baker {name}, who works in {city}, was born in {year}.")
ASK = "Answer with a JSON object with the keys name and city, and nothing else.\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, help="the folder with hh_rlhf_harmless_test")
    parser.add_argument("--only", nargs="*", choices=list(EXPERIMENTS), default=["grpo"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    options = parser.parse_args()
    for name in options.only:
        for seed in options.seeds:
            folder = options.runs / f"{name}-{seed}"
            run(folder, EXPERIMENTS[name](options, seed) | {"base": BASE, "name": name})
            tell(folder)


def grpo(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    rows = options.runs / "people.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    people = [(str(random.choice(PEOPLE)), str(name), city, int(random.integers(1950, 2020)))
              for name in NAMES for city in CITIES]
    rows.write_text("".join(json.dumps({
        "prompt": ASK + form.format(name=name, city=city, year=year),
        "completion": json.dumps({"name": name, "city": city})}) + "\n" for form, name, city, year in people))
    return {"data": {"train": str(rows.resolve()), "split": {"test": 40, "validation": 16}}, "objective": "grpo",
            "rewards": [{"kind": "json_keys", "keys": ["name", "city"], "only": True}],
            "rollouts": {"per_prompt": 8, "max_new_tokens": 32, "look_prompts": 16},
            "training": {"max_steps": 40, "batch_size": 4, "learning_rate": 2e-4, "evaluate_every": 10, "seed": seed},
            "goal": {"metric": "reward", "better_than_base_by": 0.1},
            "evaluation": {"max_new_tokens": 32, "few_shot": 0, "prompt_search": 0, "suites": []}}


def reward(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    pairs = options.data / "hh_rlhf_harmless_test" / "harmless_base_test.jsonl"
    return {"data": {"train": str(pairs.resolve()), "max_train_rows": 600, "max_length_tokens": 320,
                     "over_length": "drop", "split": {"test": 0.12, "validation": 0.05}}, "objective": "reward",
            "training": {"epochs": 1, "seed": seed}, "evaluation": {"rows": 200}}


def ppo(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    pairs = options.data / "hh_rlhf_harmless_test" / "harmless_base_test.jsonl"
    return {"data": {"train": str(pairs.resolve()), "max_train_rows": 200, "max_length_tokens": 200,
                     "over_length": "drop", "split": {"test": 40, "validation": 16}}, "objective": "ppo",
            "rewards": [{"kind": "reward_model", "run": str((options.runs / f"reward-{seed}").resolve())}],
            "rollouts": {"per_prompt": 4, "max_new_tokens": 48, "kl_target": 0.1, "look_prompts": 16},
            "training": {"max_steps": 40, "batch_size": 8, "learning_rate": 1e-4, "evaluate_every": 10, "seed": seed},
            "goal": {"metric": "reward", "better_than_base_by": 0.0},
            "evaluation": {"max_new_tokens": 48, "few_shot": 0, "prompt_search": 0, "suites": [], "rows": 40}}


EXPERIMENTS = {"grpo": grpo, "reward": reward, "ppo": ppo}


def run(folder: Path, recipe: dict[str, Any]) -> None:
    if (folder / "certificate.json").is_file():
        return
    words = ["--resume", str(folder)]
    if not (folder / "recipe.yaml").is_file():
        file = folder.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        words = [str(file), "--folder", str(folder)]
    done = subprocess.run([sys.executable, "-m", "tuneloop", "run", *words], check=False, stdout=sys.stderr)
    if done.returncode not in (0, 3, 4):
        raise SystemExit(f"{folder.name}: exit code {done.returncode}")


def tell(folder: Path) -> None:
    made = RunFolder(folder)
    certificate, record = made.read("certificate.json"), made.read("record.json")
    print(f"\n{folder.name}: {certificate['sentence']}")
    print(json.dumps(certificate["scores"], indent=1))
    steps = [line for line in made.lines("metrics.jsonl") if line["event"] == "step"]
    shown = ("rollout_reward_mean", "rollout_kl", "rollout_entropy", "rollout_new_tokens", "drift",
             "explained_variance")
    for name in shown:
        values = [line[name] for line in steps if name in line]
        if values:
            print(f"  {name}: {', '.join(f'{value:.3g}' for value in values[::5])}")
    print(f"  training: {record['training']}")
    print(f"  seconds by stage: {record['timings_seconds']}", flush=True)


if __name__ == "__main__":
    main()
