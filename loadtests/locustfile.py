"""For Locust: `locust -f loadtests/locustfile.py --host 127.0.0.1:8001`; see docs/loadtests.md."""

from __future__ import annotations

import sys
from pathlib import Path

from locust import events

sys.path.insert(0, str(Path(__file__).parent))  # no installed package

from turnout_locust.options import add_options
from turnout_locust.run import start
from turnout_locust.shape import ScenarioShape
from turnout_locust.users import OversizedUser, StreamUser, UnaryUser

__all__ = ["OversizedUser", "ScenarioShape", "StreamUser", "UnaryUser"]

events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(start)
