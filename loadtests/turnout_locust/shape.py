"""The number of users over time, as Locust asks for it: the scenario's, then none until every answer is in."""

from __future__ import annotations

import time

from locust import LoadTestShape, User

from turnout_locust.run import Run
from turnout_locust.users import user_classes

_STEPS_S_MAX = 180.0  # beyond the scenario's time, for a load that takes long
_DRAIN_S_MAX = 30.0
_SPAWN_PER_S_MAX = 100.0  # what Locust itself advises


class ScenarioShape(LoadTestShape):
    """Locust asks once a second. The last users leave gracefully: an answer that is under way is waited for."""

    use_common_options = True
    run: Run

    def reset_time(self) -> None:
        self._began = time.monotonic()
        self._drain_until_s = 0.0

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        options = self.run.options
        at_s = time.monotonic() - self._began
        classes = user_classes(options.scenario.storms)
        waits = not self.run.steps_taken and at_s < options.duration_s + _STEPS_S_MAX
        if not self._drain_until_s and (at_s < options.duration_s or waits):
            share = options.scenario.users(min(at_s / options.duration_s, 1.0))
            users = max(round(share * options.users), len(classes)) + self.run.oversized_users
            return users, min(float(options.users), _SPAWN_PER_S_MAX), classes  # they leave as fast as they come
        if not self._drain_until_s:
            self._drain_until_s = at_s + _DRAIN_S_MAX
            return 0, _SPAWN_PER_S_MAX, classes
        if self.run.under_way() and at_s < self._drain_until_s:
            return 0, _SPAWN_PER_S_MAX, classes
        return None
