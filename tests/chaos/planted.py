"""`python -m tests.chaos.planted BUG run intake …`: the command `sla` with a bug planted in it."""

import sys

from services.cli.main import main
from tests.support.planted import BUGS

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
