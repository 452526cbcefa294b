"""What goes wrong in the engine: what the person is told, and what is let go of."""

from __future__ import annotations

import traceback

from minigpt4o.common.errors import SkipSample
from minigpt4o.serve.limits import ChatError, explain


def is_memory(error: BaseException) -> bool:
    """Whether memory was short, on the processor or on a GPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def told(error: BaseException) -> ChatError:
    """The error as the person is told it: no paths, no insides."""
    if isinstance(error, ChatError):
        return error
    if isinstance(error, SkipSample):
        found = explain(error)
    elif is_memory(error):
        short = "There is not enough memory for this answer; please start a new chat or send less."
        found = ChatError(short, "no_memory")
    else:
        found = ChatError("The answer could not be generated; the reason is in the log of the server.", "failed")
    found.__cause__ = error
    return found


def trace(error: BaseException) -> str:
    """The error for the log, as text: a log record that kept the error itself would keep the tensors of its frames."""
    return "".join(traceback.format_exception(error))


def let_go(error: BaseException) -> None:
    """Forget where an error came from: its frames hold the tensors of the step that failed."""
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
