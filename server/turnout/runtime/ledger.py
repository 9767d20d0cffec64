"""What the controller tells the journal, off the loop: which version of a model it holds, what could not be written
yet, and whether a write that failed may be there all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from turnout.core.snapshot import Line, Remembered
from turnout.core.traffic import Traffic
from turnout.runtime.counts import Counts
from turnout.runtime.ports import Journal, JournalError, Offload

_VOID_MAX = 10_000  # while the journal cannot be written; of older ones, a replay may then say that they were done


class Ledger:
    """Used on the loop thread; for one model, one call at a time."""

    def __init__(self, journal: Journal, offload: Offload, counts: Counts) -> None:
        self._journal = journal
        self._counts = counts
        self._offload = offload
        self._versions: dict[str, int] = {}
        # Models of which a write failed and may be there all the same, and the lines that would take it back.
        self._doubtful: dict[str, Sequence[Line]] = {}
        self._owed: dict[str, list[Line]] = {}  # of what is in force and not written; they go with the next write
        # Ids of requests that may be written and came to nothing, with their models: forgotten with the next write.
        self._void: dict[str, str] = {}

    async def start(self) -> dict[str, Traffic]:
        """Every model's last state.

        Raises:
            JournalError: it cannot be read.
        """
        states = await self._offload(self._journal.states)
        self._versions = {model: state.version for model, state in states.items()}
        return states

    def owes(self, model: str) -> bool:
        """Whether something is in force that the journal does not know, or the journal may say what is not."""
        return model in self._owed or model in self._doubtful

    def owe(self, model: str, lines: Sequence[Line], void: str = "") -> None:
        """These are to be written with the next state. `void`: the request that they tell about did not happen."""
        self._owed.setdefault(model, []).extend(lines)
        self.void(model, void)

    def void(self, model: str, request_id: str) -> None:
        """This request ("": none) came to nothing: when it comes again it is new, after a restart too."""
        if request_id:
            while len(self._void) >= _VOID_MAX:
                del self._void[next(iter(self._void))]
            self._void[request_id] = model

    async def write(
        self, state: Traffic, lines: Sequence[Line], request: Remembered | None = None, undo: Sequence[Line] = ()
    ) -> list[Line]:
        """Write a state and the lines that tell of it, after those that are owed. Returns the lines, numbered.

        Args:
            undo: the lines that take this back, for where the write fails and is there all the same.

        Raises:
            JournalError: it may be written or not. The next write settles that: it overwrites what is there.
        """
        model = state.model
        owed = self._owed.get(model, [])
        try:
            if model in self._doubtful:
                found = await self._offload(self._journal.version, model)
                if found > self._versions.get(model, 0) and self._doubtful[model]:
                    owed = self._owed[model] = [*self._doubtful[model], *owed]
                self._versions[model] = found
                del self._doubtful[model]
            void = [request_id for request_id, its in self._void.items() if its == model]
            expected = self._versions.get(model, 0)
            stored = replace(state, version=expected + 1)
            numbered = await self._offload(self._journal.commit, expected, stored, [*owed, *lines], request, void)
        except BaseException as error:  # also a caller that leaves: the thread that writes goes on
            if isinstance(error, JournalError):
                self._counts.journal_failures += 1
            self._doubtful[model] = undo
            if request is not None:
                self.void(model, request.request_id)
            raise
        self._versions[model] = expected + 1
        self._owed.pop(model, None)
        for request_id in [*void, *([request.request_id] if request is not None else [])]:
            self._void.pop(request_id, None)
        return numbered[len(owed) :]

    async def remembered(self, request_id: str, now_ns: int) -> Remembered | None:
        """Raises:
        JournalError: it cannot be read.
        """
        if request_id in self._void:
            return None
        return await self._offload(self._journal.remembered, request_id, now_ns)

    async def remember_answer(self, request_id: str, answer: bytes) -> None:
        """Raises:
        JournalError: it cannot be written.
        """
        await self._offload(self._journal.remember_answer, request_id, answer)

    async def lines(self, model: str | None, limit: int, before_seq: int | None, since_seq: int) -> list[Line]:
        """Raises:
        JournalError: it cannot be read.
        """
        return await self._offload(self._journal.lines, model, limit, before_seq, since_seq)
