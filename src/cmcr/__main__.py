"""`python -m cmcr` is `cmcr`."""

import sys

from cmcr.cli import main

if __name__ == "__main__":
    sys.exit(main())
