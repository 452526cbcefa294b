"""The first signal asks, the second ends; in between a run may go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from minigpt4o.runners import signals
from minigpt4o.runners.signals import StopSignals


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_only_asks_and_the_old_handler_comes_back(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "TOGETHER_S", 0.0)

    def work() -> None:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    assert child(work) == 128 + signal.SIGTERM


def test_two_signals_that_come_together_are_one() -> None:
    def work() -> None:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked

    assert child(work) == 0
