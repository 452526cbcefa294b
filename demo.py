"""`python demo.py --cfg-path FILE`: the same as `python -m minigpt4o.cli demo`."""

import sys

from minigpt4o.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
