"""The container's health check: asks /readyz of the server in the same container, and says what it answered.

Where the ops port is, it reads from the environment, as the server does: flags of the server are not seen here.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

_TIMEOUT_S = 4  # below the Dockerfile's --timeout, so that the answer is this program's
_TEXT_BYTES_MAX = 500


def main(environment: Mapping[str, str]) -> int:
    """Exit status 0 while the server is ready, else 1; Docker keeps what is printed."""
    host = environment.get("TURNOUT_OPS_HOST") or environment.get("TURNOUT_HOST") or "0.0.0.0"  # noqa: S104
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nobody is listened to here
    # http.client knows nothing of proxies: one that is meant for the Internet cannot reach this container.
    port = environment.get("TURNOUT_OPS_PORT", "")
    # What container engines set for a service called turnout-ops (tcp://10.0.0.1:80) is no port, to the server neither.
    connection = http.client.HTTPConnection(host, int(port) if port.isdecimal() else 8002, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.status, answer.read(_TEXT_BYTES_MAX).decode(errors="replace").strip())
    except (OSError, http.client.HTTPException) as error:
        print(f"the ops port does not answer: {type(error).__name__}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
