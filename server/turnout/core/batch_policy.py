"""What a model's configuration says of its batches: when they are sent, in what order, how long requests may wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How the requests of one priority level wait; Triton's ModelQueuePolicy.

    Attributes:
        timeout_ns: how long a request may wait; 0: for ever.
        delays: at the timeout, a request goes behind the others of its level (DELAY) instead of failing (REJECT).
        override: a request may ask for a shorter timeout than `timeout_ns`. Without a `timeout_ns` it always may.
        requests_max: requests that may wait on the level; 0: as many as the queue takes.
    """

    timeout_ns: int = 0
    delays: bool = False
    override: bool = False
    requests_max: int = 0

    def wait_ns(self, asked_ns: int) -> int:
        """How long a request may wait that asks for `asked_ns`; 0: for ever, on both sides."""
        if not self.timeout_ns:
            return asked_ns
        return min(self.timeout_ns, asked_ns) if asked_ns and self.override else self.timeout_ns


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch is sent, and in what order requests are taken; Triton's ModelDynamicBatching.

    Attributes:
        delay_ns_max: how long the oldest request may be held back for others to join; 0: not at all.
        preferred_rows: sizes at which a batch is sent without waiting for more.
        preserve_ordering: answers leave in the order in which the requests came; only a timeout is told when it passes.
        priority_levels: 1 is the highest, this the lowest; 0: there are none.
        priority_default: the level of requests that name none, or one that is not there.
        queue: how requests wait; `queue_by_level` has the levels that differ.
        gathers: a free executor may hold a batch back where it has learned that more requests come in a moment; None:
            as the server says. A delay or preferred sizes exclude it.
        padded: batches are filled up to the sizes that warm-up ran, with copies of their last row.
    """

    delay_ns_max: int = 0
    preferred_rows: tuple[int, ...] = ()
    preserve_ordering: bool = False
    priority_levels: int = 0
    priority_default: int = 0
    queue: QueuePolicy = QueuePolicy()
    queue_by_level: Mapping[int, QueuePolicy] = field(default_factory=dict)
    gathers: bool | None = None
    padded: bool = False

    @property
    def waits_for_size(self) -> bool:
        """Whether batches are sent by a fixed delay or at preferred sizes."""
        return bool(self.delay_ns_max or self.preferred_rows)

    def level(self, priority: int) -> int:
        """The level on which a request of this priority waits."""
        return priority if 1 <= priority <= self.priority_levels else self.priority_default

    def queue_of(self, level: int) -> QueuePolicy:
        return self.queue_by_level.get(level, self.queue)
