"""Programs that run as child processes of a measurement."""
