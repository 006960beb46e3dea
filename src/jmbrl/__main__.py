"""``python -m jmbrl``: the ``jmbrl`` command."""

import sys

from jmbrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
