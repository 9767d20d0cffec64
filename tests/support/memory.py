"""What a server holds for its clients at the most, models apart."""

from __future__ import annotations

from turnout.config import Config


def held_bytes_max(settings: Config) -> int:
    """Requests under way, answers that nobody reads, and copies."""
    return settings.inflight_bytes_max + settings.answer_bytes_max + settings.shadow_total_bytes_max
