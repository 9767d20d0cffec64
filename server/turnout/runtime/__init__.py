"""asyncio and threads around the core. Knows the outside only as the Protocols of `ports`."""
