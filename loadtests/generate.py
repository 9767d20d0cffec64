"""See turnout_bench/generate.py; `python loadtests/generate.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
sys.path.extend(str(_ROOT / name) for name in ("models", "tests"))  # no installed packages

from turnout_bench.generate import main  # noqa: E402 - it needs the paths

if __name__ == "__main__":
    sys.exit(main())
