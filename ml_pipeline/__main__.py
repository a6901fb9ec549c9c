"""``python -m ml_pipeline``: the command line."""

from __future__ import annotations

import sys

from ml_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
