"""`python eval.py --cfg-path FILE`: the same as `python -m minigpt4o.cli eval`."""

import sys

from minigpt4o.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
