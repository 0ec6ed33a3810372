"""What storing a base as GGUF changes, by llama.cpp: next-token distributions after prompts of a file, against float32.

`python benchmarks/exports.py FILE.jsonl --column text [--base NAME]`. Needs llama-cpp-python. KL divergence is in nats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from tuneloop.exports import gguf_file
from tuneloop.exports.equality import PROMPTS, next_logprobs, prompts_of, read_gguf
from tuneloop.models.load import load_model
from tuneloop.models.resolve import resolve
from tuneloop.models.tokenizer import ChatTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--base", default="smollm2-135m-instruct")
    options = parser.parse_args()
    lines = options.file.read_text(encoding="utf-8").splitlines()
    rows = [{"prompt": json.loads(line)[options.column]} for line in lines[::max(1, len(lines) // PROMPTS)]]
    folder = resolve(options.base, Path.cwd()).path
    tokenizer = ChatTokenizer(folder)
    prompts = prompts_of(rows, tokenizer)
    wanted = next_logprobs(load_model(folder, dtype=torch.float32), prompts)
    print("| stored as | size | mean KL | largest KL | same likeliest token | read by |\n|---|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for stored in ("f32", "f16", "q8_0", "q4_0"):
            file = Path(temporary) / f"{stored}.gguf"
            gguf_file.write(folder, file, stored)   # type: ignore[arg-type]    # they are its quantisations
            found, read_by, _ = read_gguf(file, prompts, tokenizer)
            apart = (wanted.exp() * (wanted - found)).sum(-1)
            same = (wanted.argmax(-1) == found.argmax(-1)).float().mean()
            print(f"| {stored} | {file.stat().st_size / 2**20:.0f} MiB | {apart.mean():.1e} | {apart.max():.1e} "
                  f"| {same:.0%} | {read_by} |", flush=True)


if __name__ == "__main__":
    main()
