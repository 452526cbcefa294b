"""`python -m minigpt4o.cli`."""

import sys

from minigpt4o.cli import main

sys.exit(main())
