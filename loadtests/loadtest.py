"""See turnout_locust/main.py; `python loadtests/loadtest.py --help`."""

from __future__ import annotations

import sys

from turnout_locust.main import main

if __name__ == "__main__":
    sys.exit(main())
