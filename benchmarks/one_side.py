"""A script that looks at one side alone, on steps of instruction tuning with a shared prefix: its options, the side."""

from __future__ import annotations

import argparse

import torch
from baseline import Padded
from sides import LEARNING_RATE, Ours, Side, lora
from workloads import Make, Shape, sft

from tuneloop.objectives.sft import Objective

SIDES = ("ours", "padded")


def parser(about: str | None, steps: int) -> argparse.ArgumentParser:
    """The options that such scripts share; `steps` is the default of theirs."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--side", choices=SIDES, default="ours")
    made.add_argument("--steps", type=int, default=steps)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--shape", type=int, nargs=4, default=(256, 24, 16, 8),
                      metavar=("PREFIX", "QUESTION", "ANSWER", "ROWS"))
    return made


def chosen(given: argparse.Namespace) -> tuple[Side, Make]:
    """The side on a model of its own, and what makes its steps."""
    torch.set_num_threads(given.threads)
    model = lora()
    side: Side = (Ours(model, Objective(), LEARNING_RATE) if given.side == "ours"
                  else Padded(model, "sft", LEARNING_RATE))
    return side, sft(Shape(*given.shape))
