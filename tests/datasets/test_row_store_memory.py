"""A hundred thousand rows cost a few megabytes, in the process that reads them and in the workers it forks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "data_memory.py"
ROWS, LIMIT_MB = 100_000, 30  # a tenth of what a million may cost


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="memory is told by /proc")
def test_a_hundred_thousand_rows_cost_less_than_30_mb_and_no_more_in_workers():
    command = [sys.executable, str(BENCHMARK), "--rows", str(ROWS), "--forms", "json", "--states", "cold"]
    command += ["--limit-mb", str(LIMIT_MB)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{ROWS:,} rows" in done.stdout
    assert json.loads(done.stdout.rpartition("a process: ")[2].partition(" MB")[0]) <= LIMIT_MB
