"""How much an engine takes on at a time and how much it keeps: fields of the runner `chat` by the same names."""

from __future__ import annotations

from dataclasses import dataclass, fields

from minigpt4o.common.errors import ConfigError

_MAY_BE_NONE = ("media_cache_mb", "reuse_mb")


@dataclass(frozen=True)
class EngineSizes:
    """The sizes of an engine. Raises ConfigError for those with which nothing could be answered."""

    max_batch: int = 16  # answers that are generated together
    max_waiting: int = 64  # requests that may wait beside them
    media_cache_mb: int = 256  # features of pictures and sounds that are kept, by content
    reuse_mb: int = 512  # keys and values of the last turns of sessions that are kept

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_NONE else 1
            if value < least:
                raise ConfigError(f"{field.name} is {value}; it must be {least} or more")
