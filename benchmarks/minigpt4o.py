"""`python benchmarks/minigpt4o.py`: the speed of Minigpt4o against Gemma3n; see minigpt4o_speed.py.

This file has the package's name, and Python looks first in the folder of the script that it runs. So where a script
beside it says `import minigpt4o`, this file makes room for the package.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    importlib.import_module("minigpt4o_speed").main()
else:
    before = list(sys.path)
    sys.path[:] = [path for path in before if Path(path or ".").resolve() != HERE]
    del sys.modules[__name__]
    importlib.import_module(__name__)
    sys.path[:] = before
