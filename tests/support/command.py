"""`turnoutctl ...` in this process, as in a pipe: what it wrote, and its exit status."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from turnout_client.ctl.main import main


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def turnoutctl(*arguments: str, stdin: str = "") -> Done:
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", io.StringIO(stdin)):
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    done = Done(status, out.getvalue(), err.getvalue())
    assert "Traceback" not in done.stderr and "\x1b" not in done.stdout + done.stderr
    return done
