"""What holds for all tests."""

import signal

from hypothesis import settings

# A machine that does something else for a moment is no failure: what takes how long is measured elsewhere.
settings.register_profile("turnout", deadline=None)
settings.load_profile("turnout")

# A shell's background job ignores Ctrl-C, and so would every process that a test starts to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
