"""What a dataset builder promises, and the checks of text and turns that all builders share."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.source import nearest
from minigpt4o.conversation.marks import escape_boxes, escape_marks
from minigpt4o.conversation.sample import AUDIO_MARK, IMAGE_MARK, Media, Turn

PLACE = re.compile(r"\{([\w.]+\??)\}")  # {column}, {a.b.0} or {column?}, which may be absent
_HALF = re.compile("[\ud800-\udfff]")
TEXT_LIMIT = 100_000  # characters of one text; more is cut before any tokenizer sees it (2 M take seconds)


class Builder(Protocol):
    """One data set and split: a row number becomes a `Sample`."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: random.Random) -> Any:
        """The sample at an index; `rng` serves draws (which instruction, which answer). May raise SkipSample."""
        ...


def fingerprint_of(builder: Builder) -> str:
    """What the data are, in one word: equal for equal data wherever they lie.

    A builder without a `fingerprint()` of its own is known by its length and the ids of three samples.
    """
    if hasattr(builder, "fingerprint"):
        return str(builder.fingerprint())
    seen = []
    for index in sorted({0, len(builder) // 2, len(builder) - 1}):
        try:
            seen.append(builder.sample(index, random.Random(0)).id)
        except SkipSample as skip:
            seen.append(skip.reason)
    return sha256(len(builder), *seen)


def sha256(*words: object) -> str:
    """SHA-256 of the words, as hexadecimal digits."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(str(word).encode("utf-8", "surrogatepass") + b"\x1f")
    return digest.hexdigest()


def check_fields(fields: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises DataError if a `fields` mapping has a key that the builder does not know."""
    known = list(known)
    for key in fields:
        if key not in known:
            hint = nearest(str(key), known)
            mend = f"did you mean {hint[0]!r}?" if hint else f"known: {', '.join(known)}"
            raise DataError(f"{where}: unknown key {key!r}; {mend}")


def clean_text(value: Any, where: str, what: str, strip: bool = True) -> str:
    """A text worth learning, stripped. Raises SkipSample if it is absent, empty or cannot be encoded."""
    if value is None:
        raise SkipSample("missing_field", f"{where}: {what} is empty")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SkipSample("bad_text", f"{where}: {what} is a {type(value).__name__}, not text")
    text = str(value).replace("\0", "")
    text = (text.strip() if strip else text)[:TEXT_LIMIT]
    if not text.strip():
        raise SkipSample("bad_text", f"{where}: {what} is empty")
    if _HALF.search(text):
        raise SkipSample("bad_text", f"{where}: {what} holds half of a surrogate pair, which is no character")
    return text


def user_text(prompt: str, images: int, audios: int, where: str) -> str:
    """The prompt with a mark for every medium: where the prompt puts them, else all in front."""
    said = (prompt.count(IMAGE_MARK), prompt.count(AUDIO_MARK))
    if said == (0, 0):
        return IMAGE_MARK * images + AUDIO_MARK * audios + prompt
    if said != (images, audios):
        raise SkipSample(
            "media_mismatch",
            f"{where}: the prompt {prompt!r} has {said[0]} {IMAGE_MARK} and {said[1]} {AUDIO_MARK}, "
            f"but {images} picture(s) and {audios} sound(s) came with it",
        )
    return prompt


def one_round(
    prompt: str, answer: str, images: Sequence[Media], audios: Sequence[Media], where: str, boxed: bool = False
) -> list[Turn]:
    """User says the prompt with the media, the assistant answers. With nothing to say, the assistant speaks alone.

    Marks of boxes in the answer are only words unless it is `boxed`.
    """
    answer = answer if boxed else escape_boxes(answer)
    asked = user_text(prompt, len(images), len(audios), where)
    return ([Turn("user", asked)] if asked else []) + [Turn("assistant", answer)]


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with `{name}` replaced; what comes from data cannot bring marks of its own."""
    return PLACE.sub(lambda m: escape_marks(values[m[1]]) if m[1] in values else m[0], template)


def unique_ids(ids: Sequence[str]) -> list[str]:
    """The same ids, with `#2`, `#3`, ... after those that were seen before."""
    seen: dict[str, int] = {}
    found = []
    for word in ids:
        seen[word] = seen.get(word, 0) + 1
        found.append(word if seen[word] == 1 else f"{word}#{seen[word]}")
    return found
