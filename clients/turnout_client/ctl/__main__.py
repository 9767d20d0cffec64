"""Where `turnoutctl` starts. Until everything is imported, Ctrl-C ends the process without a stack trace."""

from __future__ import annotations

import os
import signal


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log on standard error helps nobody here
    from turnout_client.ctl.main import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
