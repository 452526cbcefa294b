"""What is wrong in a configuration and where; all of it is collected and told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from minigpt4o.common.errors import ConfigError

_ORDER = {"file": 0, "preset": 1, "default": 2, "option": 3}


@dataclass(frozen=True)
class Place:
    """Where a value was written."""

    source: Literal["file", "preset", "default", "option"]
    file: str  # the file, or for an option the words typed on the command line
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.source == "option" or not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"

    @property
    def origin(self) -> str:
        """The same for `--print-config`: default | preset FILE:LINE | FILE:LINE | the flag."""
        if self.source == "default":
            return "default"
        if self.source == "option":
            return self.file.split(" ")[0]
        return f"{'preset ' if self.source == 'preset' else ''}{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    place: Place
    key: str  # dotted key, may be empty
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.what}" if self.key else f"{self.place}: {self.what}"


class ConfigProblems(ConfigError):
    """All problems of one configuration; the text has one line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))


@dataclass
class Problems:
    """A collector: `add` as they are found, `refuse` raises if there are any."""

    found: list[Problem] = field(default_factory=list)
    renamed: dict[Place, str] = field(default_factory=dict)  # where a foreign key stands -> that key, as it was written

    def add(self, place: Place, key: str, what: str) -> None:
        problem = Problem(place, self.renamed.get(place, key), what)
        if problem not in self.found:
            self.found.append(problem)

    def refuse(self) -> None:
        if self.found:
            raise ConfigProblems(sorted(self.found, key=_in_reading_order))


def _in_reading_order(problem: Problem) -> tuple[int, str, int, int]:
    place = problem.place
    file = "" if place.source == "option" else place.file  # options stay in the order they were found
    return _ORDER[place.source], file, place.line, place.column
