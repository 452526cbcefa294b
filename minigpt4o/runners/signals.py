"""SIGTERM and SIGUSR1 ask the run to finish its step, save and end; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
TOGETHER_S = 1.0  # a launcher and its process group may both send the first one


class StopSignals:
    """Inside `with`, stop signals only set `asked`. Outside the main thread nothing is caught."""

    def __init__(self) -> None:
        self.asked = ""
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._first > TOGETHER_S:
            os._exit(128 + number)
        if not self.asked:
            self.asked, self._first = signal.Signals(number).name, now
