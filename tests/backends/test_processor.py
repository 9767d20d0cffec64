"""What /proc/cpuinfo says of the processor's instructions."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.backends.processor import has_vnni


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n", True),
        ("flags : fpu avx_vnni\n\nflags : fpu\n", True),
        ("flags : fpu avx2 avx512f not_avx512_vnni\n", False),
        ("Features : fp asimd asimddp\n", False),
        ("", False),
        (None, False),
    ],
)
def test_vnni_by_its_flags(tmp_path: Path, text: str | None, has: bool) -> None:
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "cpuinfo").write_text(text)
    assert has_vnni(tmp_path) is has
