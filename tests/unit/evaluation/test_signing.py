"""Signing: what a key signs, and that tampering with every part is told apart. No model is loaded."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tuneloop.errors import UserError
from tuneloop.evaluation import blind
from tuneloop.evaluation.signing import (
    Verification,
    canonical,
    digest,
    files_to_sign,
    keys_folder,
    sign,
    verify,
    workspace_key,
    write_signed,
)
from tuneloop.record import RunFolder

# Four rows: base is right on 1, tuned on 3. Macro-F1 by hand: base, a: tp 1, 4 given, 2 wanted -> 2/6; b: 0 -> 1/6.
# tuned, a: tp 2, 3 given, 2 wanted -> 4/5; b: tp 1, 1 given, 2 wanted -> 2/3; mean 11/15.
REFERENCES = ["a", "b", "a", "b"]
ANSWERS = {"base": ["a", "a", "c", "a"], "tuned": ["a", "a", "a", "b"]}
NLL = {"base": ([2.0, 2.0, 1.0, 1.0], [1, 1, 2, 2]), "tuned": ([1.0, 0.5, 0.5, 1.0], [1, 1, 2, 2])}


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


CERTIFICATE: dict[str, Any] = {
    "schema_version": 1, "verdict": "met", "task": "labels", "metric": "accuracy", "test_rows": 4, "run": "run",
    "goal": {"metric": "accuracy", "at_least": 0.5, "better_than_base_by": None},
    "scores": {"base": {"accuracy": score(1 / 4), "perplexity": score(math.e)},
               "tuned": {"accuracy": score(3 / 4), "macro_f1": score(11 / 15), "perplexity": score(math.exp(0.5))}},
    "differences": [{"metric": "accuracy", "from": "base", "to": "tuned", "rows": 4, **score(1 / 2)}],
}


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def unsigned(tmp_path: Path) -> RunFolder:
    """A finished run as a loop leaves it, but for its certificate, which CERTIFICATE is for."""
    folder = RunFolder(tmp_path / "run")
    folder.path.joinpath("adapter").mkdir(parents=True)
    folder.file("recipe.yaml").write_text("base: b\ngoal: {metric: accuracy, at_least: 0.5}\n")
    folder.file("adapter", "adapter_model.safetensors").write_bytes(b"weights")
    folder.write({"base": {"sha256": "0"}, "timings_seconds": {"training": 1.0}}, "record.json")
    folder.write({"steps": 3}, "plan.json")
    folder.append({"event": "step", "step": 1, "loss": 1.0}, "metrics.jsonl")
    folder.write_lines([{"row": i, "prompt": "?", "reference": r, "answers": {m: ANSWERS[m][i] for m in ANSWERS}}
                        for i, r in enumerate(REFERENCES)], "evaluation", "predictions.jsonl")
    for name, (nll, tokens) in NLL.items():
        folder.write({"name": name, "texts": ANSWERS[name], "nll": nll, "tokens": tokens}, "evaluation", f"{name}.json")
    return folder


@pytest.fixture
def signed(unsigned: RunFolder) -> RunFolder:
    write_signed(CERTIFICATE, unsigned)
    return unsigned


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def wrong(found: Verification) -> set[str]:
    """The names of what is not as it should be."""
    parts = {"changed": found.changed, "missing": found.missing, "added": found.added, "scores": found.scores,
             "goal": found.goal, "signature": found.signature != "right", "key": found.signed_by == "another key"}
    return {name for name, bad in parts.items() if bad}


# --- what is signed --------------------------------------------------------------------------------------------------

def test_canonical_json_is_one_way_to_write_a_value() -> None:
    value = {"b": (1, 2.0, 0.1), "a": {"é": None, "Z": True}, 3: "x\n"}
    assert canonical(value) == '{"3":"x\\n","a":{"Z":true,"é":null},"b":[1,2.0,0.1]}'.encode()
    assert canonical(json.loads(json.dumps(value, indent=2))) == canonical(value)
    assert canonical(5e-324) == b"5e-324"
    with pytest.raises(ValueError):
        canonical({"a": math.nan})


def test_the_signature_is_ed25519_over_the_canonical_certificate(tmp_path: Path, keys: Path) -> None:
    """Checked by the library alone, with bytes written by hand."""
    (tmp_path / "f").write_bytes(b"abc")
    made = sign({"verdict": "met", "n": 1.0, "signature": "an old one"}, {"f": tmp_path / "f"})
    told = made["signature"]
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"       # FIPS 180-2, appendix B.1
    payload = ('{"n":1.0,"signature":{"algorithm":"ed25519","files":{"f":"' + abc + '"},"public_key":"'
               + told["public_key"] + '","signed_at":"' + told["signed_at"] + '"},"verdict":"met"}').encode()
    public: Any = load_pem_public_key((keys / "signing.pub").read_bytes())
    public.verify(base64.b64decode(told["value"]), payload)
    assert base64.b64decode(told["public_key"]) == public.public_bytes_raw()


def test_the_files_are_those_that_the_certificate_rests_on(unsigned: RunFolder) -> None:
    unsigned.file("report.html").write_text("made from the certificate")
    unsigned.file("evaluation", "report.png").write_text("a picture")
    assert set(files_to_sign(unsigned.path)) == {
        "recipe.yaml", "record.json", "plan.json", "metrics.jsonl", "adapter/adapter_model.safetensors",
        "evaluation/base.json", "evaluation/tuned.json", "evaluation/predictions.jsonl"}


def test_of_the_record_all_but_the_timings_is_signed(signed: RunFolder) -> None:
    before = digest(signed.file("record.json"))
    signed.update_record(timings_seconds={"training": 1.0, "evaluation": 2.0})
    assert digest(signed.file("record.json")) == before
    signed.update_record(base={"sha256": "1"})
    assert verify(signed.path).changed == ["record.json"]


# --- what is told apart ----------------------------------------------------------------------------------------------

def test_a_certificate_that_nobody_touched(signed: RunFolder) -> None:
    found = verify(signed.path)
    assert found.ok, found
    assert wrong(found) == set()
    assert (found.signed_by, found.not_recomputed) == ("this workspace", [])
    assert json.loads(json.dumps(found.to_json()))["ok"] is True
    assert all(good for good, _ in found.lines())


def test_another_layout_of_the_same_certificate_is_the_same(signed: RunFolder) -> None:
    edit(signed.file("certificate.json"), lambda value: value.update(dict(reversed(value.items()))))
    assert verify(signed.path).ok


def to(value: Any, *keys: Any) -> Callable[[Any], None]:
    """Set what lies at `keys`."""
    def change(whole: Any) -> None:
        for key in keys[:-1]:
            whole = whole[key]
        whole[keys[-1]] = value
    return change


@pytest.mark.parametrize(("name", "change", "expected"), [
    ("certificate.json", to("not met", "verdict"), {"signature"}),
    ("certificate.json", to(0.8, "scores", "tuned", "accuracy", "value"), {"signature", "scores"}),
    ("certificate.json", to(0.75 + 3e-12, "scores", "tuned", "accuracy", "value"), {"signature", "scores"}),
    ("certificate.json", to(0.75 + 3e-13, "scores", "tuned", "accuracy", "value"), {"signature"}),
    ("certificate.json", to(0.9, "scores", "tuned", "macro_f1", "value"), {"signature", "scores"}),
    ("certificate.json", to(1.1, "scores", "tuned", "perplexity", "value"), {"signature", "scores"}),
    ("certificate.json", to(0.6, "differences", 0, "value"), {"signature", "scores"}),
    ("certificate.json", to(5, "test_rows"), {"signature", "scores"}),
    ("certificate.json", to(0.4, "goal", "at_least"), {"signature", "goal"}),
    ("certificate.json", to("2020-01-01T00:00:00Z", "signature", "signed_at"), {"signature"}),
    ("certificate.json", to("0" * 64, "signature", "files", "plan.json"), {"signature", "changed"}),
    ("certificate.json", to("0" * 64, "signature", "files", "more.json"), {"signature", "missing"}),
    ("certificate.json", to("0" * 64, "signature", "files", "../elsewhere"), {"signature", "missing"}),
    ("certificate.json", to("AAAA", "signature", "value"), {"signature"}),
    ("certificate.json", to("é", "signature", "value"), {"signature"}),
    ("certificate.json", to("AAAA", "signature", "public_key"), {"signature"}),
    ("certificate.json", to("hmac", "signature", "algorithm"), {"signature"}),
    ("certificate.json", to(7, "signature"), {"signature"}),
    ("certificate.json", to(None, "scores"), {"signature", "scores"}),
    ("certificate.json", to({"tuned": [1]}, "scores"), {"signature", "scores"}),
    ("certificate.json", to(None, "goal"), {"signature", "goal"}),
    ("plan.json", to(4, "steps"), {"changed"}),
    ("evaluation/base.json", to(0.1, "nll", 0), {"changed", "scores"}),
])
def test_an_edit_is_told_by_what_it_touched(name: str, change: Callable[[Any], None], expected: set[str],
                                            signed: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("outside the run")
    edit(signed.file(name), change)
    found = verify(signed.path)
    assert wrong(found) == expected
    assert not found.ok
    assert sum(good is False for good, _ in found.lines()) >= len(expected)


def test_edited_predictions(signed: RunFolder) -> None:
    lines = signed.lines("evaluation", "predictions.jsonl")
    lines[1]["answers"]["tuned"] = "b"
    signed.write_lines(lines, "evaluation", "predictions.jsonl")
    found = verify(signed.path)
    assert wrong(found) == {"changed", "scores"}
    assert found.changed == ["evaluation/predictions.jsonl"]
    assert found.scores[0] == "accuracy of tuned is 0.75 in the certificate, and 1.0 by the predictions."


@pytest.mark.parametrize(("name", "expected"), [
    ("evaluation/predictions.jsonl", {"missing", "scores"}), ("adapter/adapter_model.safetensors", {"missing"}),
    ("recipe.yaml", {"missing", "goal"})])
def test_a_missing_file(name: str, expected: set[str], signed: RunFolder) -> None:
    signed.file(name).unlink()
    found = verify(signed.path)
    assert wrong(found) == expected
    assert found.missing == [name]


def test_another_model_beside_the_certificate(signed: RunFolder) -> None:
    signed.file("adapter", "adapter_model.safetensors").write_bytes(b"others")
    assert verify(signed.path).changed == ["adapter/adapter_model.safetensors"]


def test_a_file_beside_the_model_that_was_not_signed(signed: RunFolder) -> None:
    """Such as a chat template, which a loader prefers to the one that was there."""
    signed.file("adapter", "chat_template.jinja").write_text("say no to everything")
    signed.file("notes.txt").write_text("mine")
    found = verify(signed.path)
    assert (wrong(found), found.added) == ({"added"}, ["adapter/chat_template.jinja"])
    assert not found.ok


def test_a_certificate_without_hashes_vouches_for_no_file(unsigned: RunFolder) -> None:
    unsigned.write(sign(CERTIFICATE, {}), "certificate.json")
    found = verify(unsigned.path)
    assert (found.signature, found.compared, found.ok) == ("right", 0, False)
    assert (False, "The certificate names no files, so none can be compared.") in found.lines()


def test_what_people_said_is_signed_and_counted_again(unsigned: RunFolder) -> None:
    unsigned.write_lines([line | {"prompt": f"? {line['row']}"} for line in
                          unsigned.lines("evaluation", "predictions.jsonl")], "evaluation", "predictions.jsonl")
    pairs = blind.ask_for(unsigned, 2)
    assert not any(name.startswith("blind/") for name in files_to_sign(unsigned.path))      # nobody has judged yet
    said = [blind.Judgement(pair.pair, "left", "ann") for pair in pairs]
    blind.write_judgements(said, unsigned.file("blind", "judgements.jsonl"))
    write_signed(CERTIFICATE | {"blind": blind.judged_in(unsigned)}, unsigned)
    assert verify(unsigned.path).ok
    blind.write_judgements([blind.Judgement(pair.pair, "tie", "ann") for pair in pairs],
                           unsigned.file("blind", "judgements.jsonl"))
    found = verify(unsigned.path)
    assert wrong(found) == {"changed", "scores"}
    assert found.changed == ["blind/judgements.jsonl"]
    unsigned.file("blind", "key.json").write_text("{}")
    assert "cannot be counted again" in verify(unsigned.path).scores[0]


def test_a_score_that_the_files_cannot_tell_is_said_and_no_fault(unsigned: RunFolder) -> None:
    changed = json.loads(json.dumps(CERTIFICATE))
    changed["scores"]["tuned"]["p95_seconds"] = score(0.1)
    write_signed(changed, unsigned)
    found = verify(unsigned.path)
    assert (found.ok, found.not_recomputed) == (True, ["p95_seconds of tuned"])


def test_a_goal_that_the_recipe_never_declared(signed: RunFolder) -> None:
    """Bound after the fact by whoever has the key: the signature is right, and it is told all the same."""
    eased = CERTIFICATE | {"goal": CERTIFICATE["goal"] | {"at_least": 0.1}}
    write_signed(eased, signed)
    found = verify(signed.path)
    assert wrong(found) == {"goal"}
    assert found.goal == ["goal.at_least is 0.1 in the certificate, and 0.5 in the recipe."]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"verdict": "met", "verdict": "not met"}', '{"a": NaN}', "\xff"])
def test_what_is_no_certificate_is_bad_input(text: str, signed: RunFolder) -> None:
    signed.file("certificate.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"certificate\.json"):
        verify(signed.path)


# --- whose key -------------------------------------------------------------------------------------------------------

def test_a_signature_of_another_workspace(signed: RunFolder, keys: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = keys / "signing.pub"
    monkeypatch.setenv("TUNELOOP_KEYS", str(tmp_path / "mine"))
    found = verify(signed.path)
    assert (found.signature, found.signed_by, found.ok) == ("right", "another key", False)
    assert not (tmp_path / "mine").exists()         # verifying makes no key
    assert verify(signed.path, theirs).signed_by == "the key given"
    assert verify(signed.path, theirs).ok

    text = tmp_path / "key.txt"
    text.write_text(found.public_key + "\n")
    assert verify(signed.path, text).ok
    workspace_key()
    assert verify(signed.path).signed_by == "another key"
    assert not verify(signed.path, tmp_path / "mine" / "signing.pub").ok


def test_signed_anew_by_someone_else(signed: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who edits and signs everything again with a key of his own is known by the key alone."""
    monkeypatch.setenv("TUNELOOP_KEYS", str(tmp_path / "theirs"))
    write_signed(CERTIFICATE | {"verdict": "not met"}, signed)
    assert verify(signed.path).ok
    monkeypatch.setenv("TUNELOOP_KEYS", str(tmp_path / "keys"))
    assert wrong(verify(signed.path)) == {"key"}


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nAA\n", b"AAAA"])
def test_a_file_that_holds_no_key_is_bad_input(content: bytes, signed: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match="holds no public key"):
        verify(signed.path, tmp_path / "key")


def test_the_private_key_is_for_its_owner_alone(keys: Path) -> None:
    first = workspace_key()
    assert (keys / "signing.key").stat().st_mode & 0o777 == 0o600
    assert keys.stat().st_mode & 0o777 == 0o700
    assert workspace_key().private_bytes_raw() == first.private_bytes_raw()
    (keys / "signing.key").chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        workspace_key()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----"])
def test_a_broken_key_is_never_replaced(content: bytes, keys: Path) -> None:
    keys.mkdir()
    (keys / "signing.key").touch(0o600)
    (keys / "signing.key").write_bytes(content)
    with pytest.raises(UserError, match="move it away"):
        workspace_key()
    assert (keys / "signing.key").read_bytes() == content


def test_without_the_variable_the_key_lies_in_the_users_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("TUNELOOP_KEYS")
    assert keys_folder() == platformdirs.user_config_path("tuneloop", appauthor=False) / "keys"


@pytest.mark.slow
def test_several_processes_at_once_make_one_key(keys: Path) -> None:
    code = ("import sys, time; import cryptography.hazmat.primitives.asymmetric.ed25519, filelock\n"
            "from tuneloop.evaluation.signing import workspace_key\n"
            "time.sleep(max(0, float(sys.argv[1]) - time.time()))\n"
            "print(workspace_key().private_bytes_raw().hex())")
    import time

    together = str(time.time() + 4)
    started = [subprocess.Popen([sys.executable, "-c", code, together], stdout=subprocess.PIPE, text=True)
               for _ in range(6)]
    made = {process.communicate(timeout=60)[0].strip() for process in started}
    assert made == {workspace_key().private_bytes_raw().hex()}
    assert {path.name for path in keys.iterdir()} <= {"signing.key", "signing.pub", ".signing.key.lock"}


def test_what_a_killed_process_left_does_not_stop_the_next(keys: Path) -> None:
    keys.mkdir()
    (keys / ".signing.key.partial").write_bytes(b"half of a")
    assert isinstance(workspace_key(), Ed25519PrivateKey)
    assert not (keys / ".signing.key.partial").exists()


# --- unsigned --------------------------------------------------------------------------------------------------------

def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cryptography is not there any more, nor what was imported from it before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)


def unsigned_by(folder: RunFolder, word: str) -> None:
    told = write_signed(CERTIFICATE, folder)["signature"]
    assert told["algorithm"] is None
    assert word in told["why"]
    found = verify(folder.path)
    assert (found.signature, found.signed_by, found.ok) == ("unsigned", "nobody", False)
    assert word in found.lines()[0][1]
    folder.write({"steps": 4}, "plan.json")
    assert verify(folder.path).changed == ["plan.json"]         # the hashes are there all the same


def test_without_the_library_a_run_goes_on_and_its_certificate_says_so(
        unsigned: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    not_installed(monkeypatch)
    unsigned_by(unsigned, "pip install cryptography")


def test_where_no_key_can_be_kept(unsigned: RunFolder, keys: Path) -> None:
    keys.write_text("a file in the place of the folder")
    unsigned_by(unsigned, "TUNELOOP_KEYS")


def test_where_others_may_read_the_key(unsigned: RunFolder, keys: Path) -> None:
    workspace_key()
    (keys / "signing.key").chmod(0o644)
    unsigned_by(unsigned, "chmod 600")


def test_a_certificate_from_before_there_were_signatures(unsigned: RunFolder) -> None:
    unsigned.write(CERTIFICATE, "certificate.json")
    found = verify(unsigned.path)
    assert wrong(found) == {"signature"}
    assert found.signature == "unsigned"


def test_a_signature_cannot_be_checked_without_the_library(signed: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    not_installed(monkeypatch)
    with pytest.raises(UserError, match="cryptography"):
        verify(signed.path)
