"""The proof of chat template and loss mask on every row, as a check: it needs a base's tokenizer, and no torch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from tuneloop.data.checks.base import Check, Chunk, text_of
from tuneloop.data.findings import Finding, Places
from tuneloop.data.fixes.base import Tools
from tuneloop.data.groups import conversations_of, group_all
from tuneloop.data.render import RenderProblem, specials_in, would_cut
from tuneloop.data.report import Lengths
from tuneloop.data.token_cache import FILE as TOKENS
from tuneloop.data.token_cache import TokenCache, render_cached
from tuneloop.models import cache
from tuneloop.types import Conversation, Group, Learnt, Preference, Rated, Rendered, Rollout, Sample

if TYPE_CHECKING:
    from tuneloop.models.tokenizer import ChatTokenizer

EXAMPLES = 3
LITTLE = 1.0                # percent of a row's tokens that carry loss, below which most of its cost teaches nothing


class Proof(Check):
    """Renders every row, and shows that exactly the answers with their end of turn carry loss.

    Supervised tokens decode to the answer: `render` refuses the row otherwise, and this check says so. It also decodes
    all tokens of a row and compares them with the text that the template made.
    """

    about: ClassVar[str] = "the chat template and the loss mask, proven on every row"

    def __init__(self, tokenizer: ChatTokenizer, limit: int | None, *, drops_long: bool = False) -> None:
        """`limit`: the most tokens of a row; None: any length. `drops_long`: whether longer ones are left out."""
        self.tokenizer, self.limit, self.drops_long = tokenizer, limit, drops_long
        self.problems: dict[str, Places] = {}
        self.specials: dict[str, Places] = {}
        self.long, self.cut = Places(), list[str]()
        self.mostly_read, self.altered = Places(), Places()
        self.whole, self.supervised = array("q"), array("q")

    def see(self, chunk: Chunk) -> None:
        if chunk.part == "evaluation":
            return
        rows = [s for s in chunk.samples if isinstance(s, Conversation | Preference | Rated | Rollout)]
        for sample, group in zip(rows, self._groups(rows), strict=True):
            for token in specials_in(sample, self.tokenizer):
                self.specials.setdefault(token, Places()).add(sample.origin)
            if isinstance(group, RenderProblem):
                self.problems.setdefault(group.message, Places()).add(sample.origin)
            else:
                self._measure(sample, group.branches)
                if not all(map(self._gives_back, conversations_of(sample), group.branches)):
                    self.altered.add(sample.origin)

    def _gives_back(self, conversation: Conversation, branch: Rendered) -> bool:
        text = self.tokenizer.full_text(conversation.messages, conversation.tools)
        return text.startswith(self.tokenizer.decode(branch.ids.tolist()))

    def _groups(self, rows: Sequence[Learnt]) -> list[Group | RenderProblem]:
        with closing(TokenCache(cache.root() / TOKENS)) as kept:
            return render_cached(rows, self.tokenizer, kept)

    def _measure(self, sample: Learnt, branches: Sequence[Rendered]) -> None:
        longest = max(branches, key=len)
        for branch in branches:
            self.whole.append(len(branch))
            self.supervised.append(branch.supervised)
        if 100 * sum(b.supervised for b in branches) < LITTLE * sum(map(len, branches)):
            self.mostly_read.add(sample.origin)
        if self.limit is not None and len(longest) > self.limit:
            self.long.add(sample.origin)
            if len(self.cut) < EXAMPLES:
                lost = would_cut(longest, self.limit, self.tokenizer)
                self.cut.append(f"{sample.origin}: {len(longest):,} tokens; cut there, it would lose "
                                f"{_ends(lost)!r}")

    def findings(self) -> list[Finding]:
        found = [self._finding("blocks", f"{_rows(at)} cannot be trained on: {why}",
                               "mend or remove them: tuneloop data fix FILE drop checks=proof --model BASE", at,
                               kind="render")
                 for why, at in self.problems.items()]
        found += [self._finding("fix", f"{_rows(at)} hold {token} inside a text, where the model takes it for the end "
                                "of a turn or the like", "remove it from the text", at, kind="special")
                  for token, at in self.specials.items()]
        if self.long:
            longer = f"{_rows(self.long)} longer than {self.limit:,} tokens"
            found.append(
                self._finding("note", f"{longer} left out, as data.over_length asks", "", self.long, kind="long")
                if self.drops_long else self._finding(
                    "blocks", f"{longer}; an answer is never cut", "shorten or split them, or leave them out with "
                    "data.over_length=drop", self.long, self.cut, "long"))
        if self.altered:
            found.append(self._finding(
                "note", f"{_rows(self.altered)} with a question that the tokenizer does not give back as it was: "
                "it holds characters that the base cannot read", "mend the characters, or choose another base",
                self.altered, kind="altered"))
        if self.mostly_read:
            found.append(self._finding(
                "note", f"in {_rows(self.mostly_read)} less than {LITTLE:g} % of the tokens carry loss: almost all "
                "of their cost is reading", "shorten their prompts", self.mostly_read, kind="mostly read"))
        return found

    def facts(self) -> dict[str, Any]:
        if not self.whole:
            return {}
        return {"loss_mask": {
            "rows": len(self.whole), "tokens": sum(self.whole),
            "supervised_percent": round(100 * sum(self.supervised) / sum(self.whole), 1),
            "tokens_per_row": vars(Lengths.of(self.whole)), "supervised_per_row": vars(Lengths.of(self.supervised))}}

    @staticmethod
    def _finding(severity: Any, what: str, fix: str, at: Places, examples: Sequence[str] = (),
                 kind: str = "") -> Finding:
        return Finding("proof", severity, what, fix, at, examples, kind)


def with_tokenizer(tools: Tools, tokenizer: ChatTokenizer) -> Tools:
    """Tools that know how many tokens a sample has for a base, and can prove its loss mask."""
    def tokens(sample: Sample) -> int:
        if isinstance(sample, Conversation | Preference | Rated | Rollout):
            [group] = group_all([sample], tokenizer)
            if isinstance(group, Group):
                return max(map(len, group.branches))
        [ids] = tokenizer.encode([text_of(sample)])
        return len(ids)

    return replace(tools, tokens=tokens, checks=lambda: {"proof": Proof(tokenizer, None)})


def _rows(places: Places) -> str:
    return "1 row" if len(places) == 1 else f"{len(places):,} rows"


def _ends(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:50]} … {text[-35:]}"
