"""Near-duplicates: ours against datasketch, on generated rows with edited copies of known Jaccard index.

`python benchmarks/duplicates.py [--rows 50000] [--repeats 3]`. Both sides get the texts and give pairs whose index over
5-character shingles is 0.8 or more, each compared exactly; signatures have 128 places in 21 bands of 6 on both. They
take turns, the first of them changing; seconds are those of the process on one thread. datasketch runs with its own
hash (SHA-1) and with a faster one (CRC-32). Before a time counts, each side's pairs must all be true ones, and recall
is told. The results are printed as a table and appended to benchmarks/results/<date>.json.
"""

from __future__ import annotations

import os

os.environ |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import argparse
import random
import statistics
import time
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import datasketch
from measure import Row, interval, keep, markdown

from tuneloop.data.near.pairs import near
from tuneloop.data.near.sketches import PLACES, band_width

THRESHOLD = 0.8
COPIES = 0.1                # of the rows
GOAL = 8
RESULTS = Path(__file__).parent / "results"

Pairs = set[tuple[int, int]]


def generated(count: int, seed: int) -> tuple[list[str], dict[tuple[int, int], float]]:
    """Texts of 12 to 37 words, and the index of each pair of a text and its copies.

    Words are drawn as often as in a language (Zipf), from a vocabulary of 20,000. A tenth of the texts are copies with
    one to four words changed, left out or added.
    """
    drawn = random.Random(seed)
    words = ["".join(drawn.choices("etaoinshrdlucmfwypvbgkqjxz", range(26, 0, -1), k=drawn.randint(2, 9)))
             for _ in range(20_000)]
    often = [1 / (10 + rank) for rank in range(len(words))]
    originals = int(count * (1 - COPIES))
    texts = [(number, " ".join(drawn.choices(words, often, k=drawn.randint(12, 37)))) for number in range(originals)]
    for _ in range(count - originals):
        number, text = drawn.choice(texts[:originals])
        texts.append((number, _edited(text, words, drawn)))
    drawn.shuffle(texts)
    families: dict[int, list[int]] = {}
    for at, (number, _) in enumerate(texts):
        families.setdefault(number, []).append(at)
    alike = {(a, b): _jaccard(texts[a][1], texts[b][1]) for family in families.values()
             for i, a in enumerate(family) for b in family[i + 1:]}
    return [text for _, text in texts], alike


def _edited(text: str, words: list[str], drawn: random.Random) -> str:
    kept = text.split()
    for _ in range(drawn.randint(1, 4)):
        at, change = drawn.randrange(len(kept)), drawn.randrange(3)
        kept[at:at + (change < 2)] = [] if change == 1 else [drawn.choice(words)]
    return " ".join(kept)


def _jaccard(a: str, b: str) -> float:
    one, other = ({text[i:i + 5] for i in range(len(text) - 4)} for text in (a, b))
    return len(one & other) / len(one | other)


def ours(texts: list[str]) -> Pairs:
    found = near(texts, THRESHOLD)
    equal = {(first, at) for at, first in enumerate(found.first.tolist()) if at != first}
    return equal | set(zip(found.left.tolist(), found.right.tolist(), strict=True))


def theirs(texts: list[str], **options: Callable[[bytes], int]) -> Pairs:
    width = band_width(THRESHOLD)
    index = datasketch.MinHashLSH(num_perm=PLACES, params=(PLACES // width, width))
    shingles = [{text[i:i + 5] for i in range(len(text) - 4)} for text in texts]
    signatures = datasketch.MinHash.bulk([[s.encode() for s in some] for some in shingles], num_perm=PLACES, **options)
    found = set()
    for number, (signature, some) in enumerate(zip(signatures, shingles, strict=True)):
        for other in index.query(signature):
            shared = len(some & shingles[other])
            if shared >= THRESHOLD * (len(some) + len(shingles[other]) - shared):
                found.add((other, number))
        index.insert(number, signature)
    return found


def timed(side: Callable[[list[str]], Pairs], texts: list[str]) -> tuple[float, Pairs]:
    began = time.process_time()
    found = side(texts)
    return time.process_time() - began, found


def compared(against: str, side: Callable[[list[str]], Pairs], rows: int, repeats: int) -> Row:
    seconds: list[tuple[float, float]] = []
    recalls: list[tuple[float, float]] = []
    for repeat in range(repeats):
        texts, alike = generated(rows, seed=repeat)
        true = {pair for pair, index in alike.items() if index >= THRESHOLD}
        order = (side, ours) if repeat % 2 == 0 else (ours, side)
        done = {which: timed(which, texts) for which in order}
        for _, found in done.values():
            assert all(_jaccard(texts[a], texts[b]) >= THRESHOLD for a, b in found), "a pair is not alike"
        seconds.append((done[side][0], done[ours][0]))
        recalls.append((len(true & done[side][1]) / len(true), len(true & done[ours][1]) / len(true)))
    ratio, low, high = interval([other / own for other, own in seconds])
    note = (f"recall {min(own for _, own in recalls):.4f} (theirs {min(other for other, _ in recalls):.4f}), precision "
            f"1; CPU seconds")
    return Row(f"near-duplicates of {rows:,} rows", against, ratio, low, high, GOAL,
               statistics.median(other for other, _ in seconds), statistics.median(own for _, own in seconds),
               note=note, details={"seconds": seconds, "recalls": recalls})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = []
    for against, side in (("datasketch, SHA-1", theirs),
                          ("datasketch, CRC-32", lambda texts: theirs(texts, hashfunc=zlib.crc32))):
        rows.append(compared(against, side, given.rows, given.repeats))
        keep(rows[-1], RESULTS / f"{date.today()}.json", {"machine": os.cpu_count(), "datasketch":
                                                          datasketch.__version__})
    print(markdown(rows))


if __name__ == "__main__":
    main()
