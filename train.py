"""`python train.py --cfg-path FILE`: the same as `python -m minigpt4o.cli train`."""

import sys

from minigpt4o.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
