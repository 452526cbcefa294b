"""One growing answer: its text, where it stops, and how much of it is certain enough to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_BROKEN = "\ufffd"  # what decoding shows for a character whose bytes are not all there yet
_WINDOW, _CONTEXT = 96, 32  # tokens decoded anew for each piece at most, and how many of them remain then


@dataclass
class Answer:
    """Collects the tokens of one row. `text` is cut before the first stop string and stripped."""

    tokenizer: Any
    stop: Sequence[str] = ()  # strings that end the answer
    end_ids: frozenset[int] = frozenset()  # ids that end the answer
    min_tokens: int = 0  # nothing ends the answer before so many tokens
    on_text: Callable[[str], None] | None = None
    ids: list[int] = field(default_factory=list)
    text: str = ""
    done: bool = False
    _shown: int = 0  # characters of `text` already given to on_text
    _floor: int = 0  # characters of the first `min_tokens` tokens, in which no stop string counts
    _settled: str = ""  # text in front of that of ids[_start:]
    _start: int = 0

    def add(self, token: int) -> None:
        """Take the next token; a token after the end is ignored."""
        if self.done:
            return
        early = len(self.ids) < self.min_tokens
        if token in self.end_ids and not early:
            self.finish()
            return
        self.ids.append(token)
        if not self.stop and self.on_text is None:
            return  # the text is read once, at the end
        raw = self._read()
        if early:
            self._floor = len(raw)
        if self._cut(raw) is not None:
            self.finish()
        elif self.on_text is not None:
            self._show(self._certain(raw).lstrip())

    def finish(self) -> None:
        """No more tokens will come: settle the text and show the rest of it."""
        self.done = True
        raw = self._decode(self.ids)
        self.text = raw[: self._cut(raw)].strip()
        if self.on_text is not None:
            self._show(self.text)

    def _read(self) -> str:
        """The text of all tokens. Only the last of them are decoded: more tokens do not change what stands before."""
        raw = self._settled + self._decode(self.ids[self._start :])
        if len(self.ids) - self._start > _WINDOW:
            start = len(self.ids) - _CONTEXT
            last = self._decode(self.ids[start:])
            if raw.endswith(last):  # else it begins inside a character
                self._settled, self._start = raw[: len(raw) - len(last)], start
        return raw

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _cut(self, raw: str) -> int | None:
        """Where the first stop string begins."""
        return min((at for at in (raw.find(s, self._floor) for s in self.stop) if at >= 0), default=None)

    def _certain(self, raw: str) -> str:
        """Leave off what may still change: half a character, the beginning of a stop string, blanks at the end."""
        raw = raw.rstrip(_BROKEN)
        longest = max(
            (n for s in self.stop for n in range(1, len(s)) if raw.endswith(s[:n])),
            default=0,
        )
        return raw[: len(raw) - longest].rstrip()

    def _show(self, text: str) -> None:
        if len(text) > self._shown:
            assert self.on_text is not None
            self.on_text(text[self._shown :])
            self._shown = len(text)
