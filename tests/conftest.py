"""What holds for all tests."""

from hypothesis import settings

# A machine that does something else for a moment is no failure: what takes how long is measured elsewhere.
settings.register_profile("turnout", deadline=None)
settings.load_profile("turnout")
