"""`python -m torchdcls`, which torchrun's `-m` needs."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
