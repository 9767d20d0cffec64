"""The options that Locust has for this locustfile, and their typed form."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout_locust.scenarios import LoadTestError, Scenario, scenario_named

DEFAULT_MODEL = "digits"
DEFAULT_EXPECTED = Path(__file__).parents[2] / "models" / "repository" / DEFAULT_MODEL
DEADLINE_S = 5.0
RATE = 200.0
USERS = 20
SLOT = "green"


@dataclass(frozen=True, slots=True)
class Options:
    """Attributes:
    admin: `HOST:PORT` of the admin service; empty: slots are neither read nor changed.
    to_version: what LOAD brings; empty: the scenario needs none.
    rate: requests per second that all users together aim at; 0: as fast as answers come.
    batch_rows_max: of the model; 0: it does not batch; below: not known yet.
    message_bytes_max: the server's limit; 0: not known, so none is sent that is above it.
    summary: where the JSON goes; None: nowhere.
    """

    scenario: Scenario
    host: str
    admin: str
    model: str
    expected: Path
    versions: tuple[str, ...]
    to_version: str
    slot: str
    users: int
    rate: float
    duration_s: float
    deadline_s: float
    batch_rows_max: int
    message_bytes_max: int
    summary: Path | None

    @staticmethod
    def parsed(found: Namespace) -> Options:
        """Raises:
        LoadTestError: they do not go together.
        """
        scenario = scenario_named(found.scenario)
        if not found.host:
            raise LoadTestError("--host HOST:PORT is needed: the server's port for requests")
        if scenario.moves and not (found.admin and found.to_version):
            raise LoadTestError(f"scenario '{scenario.name}' changes slots: it needs --admin and --to-version")
        return Options(
            scenario=scenario,
            host=found.host.removeprefix("http://").rstrip("/"),
            admin=found.admin,
            model=found.model,
            expected=Path(found.expected),
            versions=tuple(filter(None, found.versions.split(","))),
            to_version=found.to_version,
            slot=found.slot,
            users=found.num_users or USERS,
            rate=found.rate,
            duration_s=found.duration_s or scenario.duration_s,
            deadline_s=found.deadline_s,
            batch_rows_max=found.batch_rows_max,
            message_bytes_max=found.message_bytes_max,
            summary=Path(found.summary) if found.summary else None,
        )


def add_options(parser: Any) -> None:
    """To Locust's own parser. The web UI shows those that mean something there."""
    parser.add_argument(
        "--scenario", default="steady", help="what is done, see docs/loadtests.md", include_in_web_ui=False
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="that is asked", include_in_web_ui=False)
    parser.add_argument("--admin", default="", help="HOST:PORT of the admin service", include_in_web_ui=False)
    parser.add_argument(
        "--expected",
        default=str(DEFAULT_EXPECTED),
        help="folder with VERSION/golden.npz: samples and what each revision answers to them",
        include_in_web_ui=False,
    )
    parser.add_argument("--versions", default="", help="only these of them, with commas", include_in_web_ui=False)
    parser.add_argument("--to-version", default="", help="what is loaded beside the live one", include_in_web_ui=False)
    parser.add_argument("--slot", default=SLOT, help="where it is loaded", include_in_web_ui=False)
    parser.add_argument(
        "--rate", type=float, default=RATE, help="requests per second of all users; 0: as fast as answers come"
    )
    parser.add_argument("--duration-s", type=float, default=0.0, help="0: the scenario's own")
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S, help="an answer after that is lost")
    parser.add_argument(
        "--batch-rows-max", type=int, default=-1, help="of the model; -1: the server is asked", include_in_web_ui=False
    )
    parser.add_argument("--message-bytes-max", type=int, default=0, help="the server's limit", include_in_web_ui=False)
    parser.add_argument("--summary", default="", help="JSON file to write", include_in_web_ui=False)
