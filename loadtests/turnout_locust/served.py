"""The server of a load test: a copy of one model with one version, and the other one added once it serves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from turnout_bench.processes import Child, server_arguments
from turnout_locust.scenarios import LoadTestError


def versions_in(folder: Path) -> list[int]:
    """The version folders of a model, in order.

    Raises:
        LoadTestError: there is no such model.
    """
    if not folder.is_dir():
        raise LoadTestError(f"there is no model '{folder.name}' in '{folder.parent}': REPOSITORY= and MODEL=")
    found = sorted(int(each.name) for each in folder.iterdir() if each.name.isdigit() and each.is_dir())
    if not found:
        raise LoadTestError(f"model '{folder.name}' has no version folder: MODEL/VERSION/model.onnx")
    return found


def chosen_versions(folder: Path, live: int | None, other: int | None, moves: bool) -> tuple[int, int | None]:
    """Which version serves from the start, and which one is loaded beside it: those that are asked for, else the
    oldest, and the one after it. The latter is None where the scenario moves nothing.

    Raises:
        LoadTestError: one is not there.
    """
    found = versions_in(folder)
    first = found[0] if live is None else live
    later = [each for each in found if each > first] or [each for each in found if each != first]
    second = other if other is not None else (later[0] if later else None)
    if missing := [each for each in (first, second) if each is not None and each not in found]:
        raise LoadTestError(f"model '{folder.name}' has the versions {found}, and not {missing[0]}: FROM= and TO=")
    if moves and (second is None or second == first):
        raise LoadTestError(f"model '{folder.name}' needs a second version for this scenario: TO=")
    return first, second if moves else None


@contextmanager
def server(source: Path, live: int, other: int | None, scratch: Path, flags: Sequence[str]) -> Iterator[Child]:
    """A server on free ports, in a session of its own: Ctrl-C in a terminal reaches the load first."""
    others = {str(each) for each in versions_in(source)} - {str(live)}
    served = scratch / "repository" / source.name
    shutil.copytree(source, served, ignore=lambda at, _: others if Path(at) == source else set())
    child = Child(
        "turnout",
        server_arguments(
            served.parent, "--preflight=on", "--log-level=warning", f"--state-dir={scratch / 'state'}", *flags
        ),
        core=None,
        own_session=True,
    )
    try:
        child.start()
        if other is not None:
            shutil.copytree(source / str(other), served / str(other))
        yield child
    finally:
        child.stop()
