"""Steps run side by side, show their output, are measured, and stop at the first failure."""

import signal
import subprocess
import sys
import textwrap
import time

from minigpt4o.cli.steps import Step, family_mib, run_steps


def python(name: str, code: str) -> Step:
    return Step(name, [sys.executable, "-c", textwrap.dedent(code)])


def test_steps_run_side_by_side_and_keep_their_order(tmp_path) -> None:
    wait = "import time; time.sleep(1.0)"
    start = time.monotonic()
    outcomes = run_steps([python("a", wait), python("b", wait)], tmp_path, at_once=2)
    assert time.monotonic() - start < 1.9
    assert [outcome.name for outcome in outcomes] == ["a", "b"]
    assert all(outcome.code == 0 and outcome.seconds >= 1.0 for outcome in outcomes)


def test_output_is_shown_with_the_name_in_front_and_kept_in_a_log(tmp_path, capsys) -> None:
    run_steps([python("voice", "import sys; print('hello'); print('bad', file=sys.stderr)")], tmp_path)
    assert "[voice] hello" in capsys.readouterr().out
    assert set((tmp_path / "voice.log").read_text().split()) == {"hello", "bad"}


def test_after_a_failure_nothing_new_starts_and_the_last_words_are_kept(tmp_path) -> None:
    outcomes = run_steps([python("bad", "raise SystemExit('no such file')"), python("next", "pass")], tmp_path)
    assert [(outcome.name, outcome.code) for outcome in outcomes] == [("bad", 1)]
    assert "no such file" in outcomes[0].tail


def test_memory_counts_the_children_too(tmp_path) -> None:
    child = "import time; x = bytearray(60 << 20); time.sleep(1.5)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    (outcome,) = run_steps([python("family", code)], tmp_path)
    assert outcome.peak_mib > 60
    assert family_mib(2**30) == 0.0


def test_an_interrupted_run_stops_its_steps(tmp_path) -> None:
    code = f"""
        import pathlib, sys
        from minigpt4o.cli.steps import Step, run_steps
        child = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
        run_steps([Step("long", [sys.executable, "-c", child])], pathlib.Path({str(tmp_path)!r}))
    """
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline().split()[-1])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert family_mib(child) == 0.0
