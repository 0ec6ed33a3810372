"""Rows at random: all different, all really there, spread over the source, and no more of it read than is said."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneloop.data import sample
from tuneloop.data.read import Row, open_source
from tuneloop.data.sample import sample_rows

ROWS = 3000


def body(i: int) -> dict[str, object]:
    return {"id": i, "text": f"é{i} " * (i % 7 + 1)}


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "READ_WHOLE_BYTES", 10)
    monkeypatch.setattr(sample, "FIRST_ROWS", 500)


def drawn(folder: Path, name: str, count: int = 100, seed: int = 1) -> tuple[list[int], list[Row], str]:
    rows, note = sample_rows(open_source(name, folder), count, seed)
    ids = [int(row.values["id"]) for row in rows]
    assert len(set(ids)) == len(ids)
    return ids, rows, note


def is_spread(ids: list[int]) -> bool:
    """Of uniform draws of 100, none of five equal parts gets fewer than 6 in all but one of 100,000 cases."""
    return all(sum(part <= i * 5 / ROWS < part + 1 for i in ids) >= 6 for part in range(5))


def jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(body(i), ensure_ascii=False) + "\n" for i in range(ROWS)), encoding="utf-8")
    return path


def csv_text(end: str = "\n") -> str:
    return f"id,text{end}" + "".join(f'{i},"{body(i)["text"]}, and {i}"{end}' for i in range(ROWS))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "bom.csv"])
def test_rows_at_random_places_are_found_again_by_their_byte(name: str, tmp_path: Path) -> None:
    jsonl(tmp_path)
    (tmp_path / "rows.csv").write_text(csv_text("\r\n"), encoding="utf-8", newline="")
    (tmp_path / "bom.csv").write_text(csv_text(), encoding="utf-8-sig")
    ids, rows, note = drawn(tmp_path, name)
    assert note == "drawn at random places of the file"
    assert len(ids) == 100
    assert is_spread(ids)
    assert ids != sorted(ids)
    data = (tmp_path / name).read_bytes()
    for number, row in zip(ids, rows, strict=True):
        file, _, byte = row.file.partition(" from byte ")
        line = data[int(byte.replace(",", "")):].split(b"\n")[row.line - 1].decode()
        assert file == name
        assert row.values == (json.loads(line) if name == "rows.jsonl" else {
            "id": str(number), "text": f"{body(number)['text']}, and {number}"})
        assert line.startswith('{"id": ' + f"{number}," if name == "rows.jsonl" else f"{number},")
    assert drawn(tmp_path, name)[0] == ids
    assert drawn(tmp_path, name, seed=2)[0] != ids


def test_the_last_row_and_the_first_can_be_drawn(tmp_path: Path) -> None:
    jsonl(tmp_path)
    seen = {i for seed in range(60) for i in drawn(tmp_path, "rows.jsonl", 250, seed)[0]}
    assert {0, ROWS - 1} <= seen


def test_many_of_the_rows_are_drawn_by_reading_all(tmp_path: Path) -> None:
    jsonl(tmp_path)
    ids, rows, note = drawn(tmp_path, "rows.jsonl", 1000)
    assert note == "drawn from all 3,000 rows"
    assert len(ids) == 1000
    assert all(row.line == i + 1 for i, row in zip(ids, rows, strict=True))
    assert sorted(drawn(tmp_path, "rows.jsonl", 9000)[0]) == list(range(ROWS))


@pytest.mark.parametrize("odd", ["quoted line ends", "a broken line", "utf-16", "a json list"])
def test_where_lines_are_no_rows_all_is_read(odd: str, tmp_path: Path) -> None:
    name = "rows.json" if odd == "a json list" else "rows.csv"
    text = {"quoted line ends": csv_text().replace(", and", "\nand"), "a broken line": csv_text(),
            "utf-16": csv_text(), "a json list": json.dumps([body(i) for i in range(ROWS)], indent=0)}[odd]
    (tmp_path / name).write_text(text, encoding="utf-16" if odd == "utf-16" else "utf-8")
    if odd == "a broken line":
        (tmp_path / name).write_text("".join(line + ",too,many\n" for line in csv_text().splitlines()[1:]))
        (tmp_path / name).write_text(csv_text().split("\n")[0] + "\n" + (tmp_path / name).read_text())
        with pytest.raises(Exception, match="line 2: 4 fields, but the header has 2"):
            drawn(tmp_path, name)
        return
    ids, _, note = drawn(tmp_path, name)
    assert note == "drawn from all 3,000 rows"
    assert is_spread(ids)


def test_a_compressed_file_is_drawn_from_its_beginning_and_that_is_said(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(jsonl(tmp_path).read_bytes()))
    ids, _, note = drawn(tmp_path, "rows.jsonl.gz", 40)
    assert note == "drawn from the first 500 rows, for this kind of source is read only from its beginning"
    assert max(ids) < 500
    assert drawn(tmp_path, "rows.jsonl.gz", 300)[2] == "drawn from all 3,000 rows"


def test_parquet_is_drawn_from_some_of_its_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([body(i) for i in range(ROWS)]), tmp_path / "rows.parquet", row_group_size=100)
    ids, rows, note = drawn(tmp_path, "rows.parquet", 150)
    assert note == "drawn from all 600 rows of 6 of 30 row groups"
    assert len({i // 100 for i in ids}) == 6
    assert all(row.line == i + 1 for i, row in zip(ids, rows, strict=True))


def test_files_of_a_folder_are_drawn_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = jsonl(tmp_path).read_text().splitlines(keepends=True)
    (tmp_path / "all").mkdir()
    for part in range(30):
        (tmp_path / "all" / f"{part:02}.jsonl").write_text("".join(lines[part * 100:(part + 1) * 100]))
    ids, rows, note = drawn(tmp_path, "all", 100)
    assert note.startswith("20 of 30 files, by their size: drawn ")
    assert len(ids) == 100
    assert len({i // 100 for i in ids}) == 20
    assert all(row.file.startswith(f"all/{i // 100:02}.jsonl") for i, row in zip(ids, rows, strict=True))
    monkeypatch.setattr(sample, "READ_WHOLE_BYTES", 10**6)
    ids, rows, note = drawn(tmp_path, "all", 100)
    assert note == "drawn from all 3,000 rows"
    assert is_spread(ids)


def test_every_row_is_as_likely_as_any_other() -> None:
    """Each of 20 rows is in a fifth of the draws of 4: 600 of 3,000 give or take 5 standard deviations of 22."""
    import random

    chance = random.Random(0)
    times = [0] * 20
    for _ in range(3000):
        for row in sample._reservoir(range(20), 4, chance)[0]:
            times[row] += 1
    assert all(abs(n - 600) < 110 for n in times)
