"""What all requests of this process may hold together, over every model: rows and tensor bytes, queued or running."""

from __future__ import annotations


class Budget:
    """Used on the loop thread only. What was taken is given back when its request has ended."""

    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self.rows = 0
        self.bytes = 0
        self._rows_max = rows_max
        self._bytes_max = bytes_max

    def take(self, rows: int, size: int) -> str:
        """Take both and return "", or return the bound that stands against it. The first request always fits."""
        if self.rows:
            if self.rows + rows > self._rows_max:
                return f"{self._rows_max} rows"
            if self.bytes + size > self._bytes_max:
                return f"{self._bytes_max} bytes"
        self.rows += rows
        self.bytes += size
        return ""

    def give_back(self, rows: int, size: int) -> None:
        self.rows -= rows
        self.bytes -= size
