"""How long a stop may take beyond drain delay and grace, from the bounds that the server has for its steps."""

from turnout.app import stopping

_ADMIN_S = 3 * stopping._ADMIN_STOP_S_MAX  # copies, changes, and the service
STOP_S_MAX = _ADMIN_S + stopping._UNLOAD_S_MAX + stopping._TELEMETRY_S_MAX + stopping.LOG_S_MAX
