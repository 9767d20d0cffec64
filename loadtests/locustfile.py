"""For Locust: `locust -f loadtests/locustfile.py --host 127.0.0.1:8001`, or all at once `make loadtest SCENARIO=swap`."""

from __future__ import annotations

import sys
from pathlib import Path

from locust import events

sys.path.insert(0, str(Path(__file__).parent))  # no installed package

from turnout_locust.options import add_options  # noqa: E402 - it needs the path
from turnout_locust.run import start  # noqa: E402
from turnout_locust.shape import ScenarioShape  # noqa: E402
from turnout_locust.users import OversizedUser, StreamUser, UnaryUser  # noqa: E402

__all__ = ["OversizedUser", "ScenarioShape", "StreamUser", "UnaryUser"]

events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(start)
