"""A tokenizer.json as GGUF metadata, so that llama.cpp makes the same ids of a text; what it cannot is refused.

llama.cpp splits text with rules of its own, chosen by a name (`tokenizer.ggml.pre`, llama-vocab.cpp), so only
tokenizers whose splitting is exactly one of those are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6      # gguf.TokenType
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2, LLAMA3 = rf"{WORDS}|\p{{N}}|{REST}", rf"{WORDS}|\p{{N}}{{1,3}}|{REST}"
PRE_TOKENIZERS = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", QWEN2), ("ByteLevel", False)): "qwen2",
    (("Split", LLAMA3), ("ByteLevel", False)): "llama-bpe",
}
"""Of the steps that `_steps` gives, the name in llama.cpp."""

MARK = "\N{LOWER ONE EIGHTH BLOCK}"     # SentencePiece's space
REFUSED = "export it as a merged model instead"
TOLERATED = 0.01        # of a SentencePiece vocabulary, tokens that its list of merges misses


@dataclass(frozen=True)
class _Token:
    text: str
    kind: int


def add(writer: Any, folder: Path, rows: int) -> None:
    """Write the tokenizer in `folder` and its chat template; `rows` of the embeddings, more than tokens at times."""
    tokenizer = ChatTokenizer(folder)
    try:
        stored: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'tokenizer.json'} cannot be read: {error}.", wanted="a fast tokenizer") from error
    model = stored["model"]
    if model["type"] != "BPE":
        raise UserError(f"A tokenizer of the kind {model['type']} is not written to GGUF.", wanted="BPE", fix=REFUSED)
    tokens = _tokens(stored, rows)
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else (m[0], m[1]) for m in model["merges"]]
    if model.get("byte_fallback"):
        _add_sentencepiece(writer, stored, tokens, merges, tokenizer)
    else:
        _add_byte_level(writer, stored, merges)
    writer.add_token_list([token.text for token in tokens])
    writer.add_token_types([token.kind for token in tokens])
    _add_specials(writer, tokenizer)


def _tokens(stored: dict[str, Any], rows: int) -> list[_Token]:
    """Every row of the embeddings as a token; rows without one are marked unused."""
    texts: dict[int, str] = {}
    for text, index in stored["model"]["vocab"].items():
        if index not in texts or BYTE_TOKEN.fullmatch(text):    # two spellings of one id: the byte is the real one
            texts[index] = text
    kinds = {index: BYTE if BYTE_TOKEN.fullmatch(text) and stored["model"].get("byte_fallback") else NORMAL
             for index, text in texts.items()}
    unknown = stored["model"].get("unk_token")
    for added in stored.get("added_tokens", ()):
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    for index, text in texts.items():
        if text == unknown and stored["model"].get("byte_fallback"):
            kinds[index] = UNKNOWN
    if texts and max(texts) >= rows:
        raise UserError(f"The tokenizer has the id {max(texts)}, the model only {rows} embeddings.",
                        wanted="the tokenizer that belongs to the model")
    return [_Token(texts.get(i, f"[PAD{i}]"), kinds.get(i, UNUSED)) for i in range(rows)]


def pre_tokenizer(stored: dict[str, Any]) -> str:
    """llama.cpp's name of the rules by which a byte-level tokenizer.json splits text, or a UserError."""
    steps = _steps(stored.get("pre_tokenizer"))
    name = PRE_TOKENIZERS.get(steps)
    whole_words = bool(stored["model"].get("ignore_merges"))
    if name == "llama-bpe" and not whole_words:
        name = "dbrx"       # the same rules, without a look-up of whole words first
    elif name is None or (whole_words and name != "llama-bpe"):
        described = " + ".join(str(kind) for kind, _ in steps) + (" with ignore_merges" if whole_words else "")
        raise UserError(f"The pre-tokenizer {described or 'none'} of this tokenizer is none that llama.cpp has.",
                        wanted="that of " + ", ".join(PRE_TOKENIZERS.values()), fix=REFUSED)
    normalizer = (stored.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):     # llama.cpp leaves NFC out; text that people type is in it already
        raise UserError(f"The normalizer {normalizer} of this tokenizer is none that llama.cpp has.", fix=REFUSED)
    return name


def _steps(found: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    if found is None:
        return ()
    if found["type"] == "Sequence":
        return tuple(step for inner in found["pretokenizers"] for step in _steps(inner))
    kind, plain = found["type"], "unlike llama.cpp"
    if kind == "ByteLevel":
        return ((kind, plain if found["add_prefix_space"] else found.get("use_regex", True)),)
    if kind == "Digits":
        return ((kind, found["individual_digits"]),)
    if kind == "Split":
        isolated = found["behavior"] == "Isolated" and not found["invert"]
        return ((kind, found["pattern"].get("Regex", plain) if isolated else plain),)
    return ((kind, plain),)


def _add_byte_level(writer: Any, stored: dict[str, Any], merges: list[tuple[str, ...]]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(stored))
    writer.add_token_merges([" ".join(merge) for merge in merges])


def _add_sentencepiece(writer: Any, stored: dict[str, Any], tokens: list[_Token], merges: list[tuple[str, ...]],
                       tokenizer: ChatTokenizer) -> None:
    """As llama.cpp's "llama": it joins the neighbours whose joint token scores best, so scores follow the merges."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge), rank)
    normal = [token for token in tokens if token.kind == NORMAL]
    _require_all_merges(normal, merges)
    if sum(token.kind == BYTE for token in tokens) != 256:
        raise UserError("The tokenizer falls back to bytes, but has no token for some of them.", fix=REFUSED)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([-float(ranks.get(token.text, len(ranks))) if token.kind == NORMAL else 0.0
                             for token in tokens])
    writer.add_add_space_prefix(_space_prefix(stored, tokenizer))


def _require_all_merges(normal: list[_Token], merges: list[tuple[str, ...]]) -> None:
    """SentencePiece may join any two tokens whose joint text is a token; a list of merges may allow fewer."""
    have, known = set(merges), {token.text for token in normal}
    lacking = [token.text for token in normal
               if any((token.text[:i], token.text[i:]) not in have for i in range(1, len(token.text))
                      if token.text[:i] in known and token.text[i:] in known)]
    if len(lacking) > TOLERATED * len(normal):
        raise UserError(f"The tokenizer joins characters otherwise than SentencePiece: {len(lacking)} tokens, such as "
                        f"{lacking[0]!r}, have splits without a merge.", fix=REFUSED)


def _space_prefix(stored: dict[str, Any], tokenizer: ChatTokenizer) -> bool:
    """Whether text gets a space in front, as Llama 2's does. llama.cpp also adds it after every special token."""
    schemes = set(_prefix_schemes(stored.get("normalizer"))) | set(_prefix_schemes(stored.get("pre_tokenizer")))
    if "always" in schemes:
        return True
    from tuneloop.types import Message

    # "first": only where a text begins. A chat that begins with a special token never gets one.
    prompt = tokenizer.prompt_text([Message("user", "Hello")])
    return "first" in schemes and not any(prompt.startswith(special) for special in tokenizer.specials)


def _prefix_schemes(step: dict[str, Any] | None) -> Iterator[str]:
    if step is None:
        return
    for inner in step.get("normalizers", []) + step.get("pretokenizers", []):
        yield from _prefix_schemes(inner)
    if step["type"] == "Prepend" and step["prepend"] == MARK:
        yield "always"
    elif step["type"] == "Metaspace":
        yield str(step.get("prepend_scheme", "always"))
    elif step["type"] not in {"Sequence", "Replace", "Split"}:
        raise UserError(f"The step {step['type']} of this tokenizer is none that llama.cpp has.", fix=REFUSED)


def _add_specials(writer: Any, tokenizer: ChatTokenizer) -> None:
    inner = tokenizer.inner
    for name, add_id in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id),
                         ("unk", writer.add_unk_token_id), ("pad", writer.add_pad_token_id)):
        if (index := getattr(inner, f"{name}_token_id")) is not None:
            add_id(int(index))
    writer.add_eot_token_id(int(tokenizer.end_of_turn_id))
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(False)
    writer.add_chat_template(inner.chat_template)


def adds_bos(tokenizer: ChatTokenizer) -> bool:
    """Whether the tokenizer puts its beginning-of-text token in front of any text."""
    inner = tokenizer.inner
    return inner.bos_token_id is not None and inner("a")["input_ids"][:1] == [inner.bos_token_id]
