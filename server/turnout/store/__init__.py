"""The model repository on disk: what models and versions there are, their digests and their configuration."""

from turnout.store.repository import ModelLimits, Repository

__all__ = ["ModelLimits", "Repository"]
