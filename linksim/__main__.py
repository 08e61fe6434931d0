"""`python -m linksim`: the command line of this Python's linksim, wherever `linksim` on the PATH may lead."""

import sys

from linksim.cli import main

sys.exit(main())
