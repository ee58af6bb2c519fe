"""`python -m rmkit`: see cli.py. Reads and writes nothing itself."""

import sys

from rmkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
