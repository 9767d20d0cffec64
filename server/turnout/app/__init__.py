"""The composition root: the only package that knows concrete classes (invariant 7)."""

from turnout.app.parts import repository
from turnout.app.problems import StartError
from turnout.app.serving import Started, serve

__all__ = ["StartError", "Started", "repository", "serve"]
