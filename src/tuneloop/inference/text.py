"""The text of an answer while its tokens arrive."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.models.tokenizer import ChatTokenizer

BROKEN = "\ufffd"       # what half a character decodes to


class TextSoFar:
    """Decodes token by token; a piece is held back while it ends in half a character, or may begin a stop."""

    def __init__(self, tokenizer: ChatTokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, [text for text in stop if text]
        self._ids: list[int] = []
        self._shown, self._read = 0, 0      # ids whose text is known for good, and those read once
        self.text = ""
        self.told = 0                       # characters that `piece` gave out
        self.stopped = False

    def add(self, token: int) -> None:
        """One more token. A few before it are decoded again, since a token's text can depend on them."""
        self._ids.append(token)
        known = self._decode(self._ids[self._shown:self._read])
        now = self._decode(self._ids[self._shown:])
        if len(now) > len(known) and not now.endswith(BROKEN):
            self._extend(now[len(known):])
            self._shown, self._read = self._read, len(self._ids)

    def close(self) -> None:
        """Nothing follows: half a character is shown as such."""
        if self._read < len(self._ids) and not self.stopped:
            known = self._decode(self._ids[self._shown:self._read])
            self._extend(self._decode(self._ids[self._shown:])[len(known):])
            self._read = len(self._ids)

    def piece(self, *, last: bool = False) -> str:
        """What is new since the last piece, without what may yet turn out to begin a stop."""
        end = len(self.text) if last or self.stopped else len(self.text) - self._held_back()
        new, self.told = self.text[self.told:end], max(self.told, end)
        return new

    def _extend(self, more: str) -> None:
        reach = max((len(stop) for stop in self._stop), default=0)
        start = max(0, len(self.text) - reach)
        self.text += more
        found = [at for at in (self.text.find(stop, start) for stop in self._stop) if at >= 0]
        if found:
            self.text, self.stopped = self.text[:min(found)], True

    def _held_back(self) -> int:
        return max((n for stop in self._stop for n in range(1, len(stop)) if self.text.endswith(stop[:n])), default=0)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, special=False)
