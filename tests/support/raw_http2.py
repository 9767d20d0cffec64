"""A gRPC client that does what no library lets one do: send half a request, declare sizes that never come, and leave.

Just enough of HTTP/2 (RFC 9113) and HPACK (RFC 7541, literal fields only) to open a call and write bytes into it.
"""

from __future__ import annotations

import socket
import struct

INFER = "/inference.GRPCInferenceService/ModelInfer"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_INITIAL_WINDOW_SIZE = 4
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4


class RawCall:
    """One connection with one call on it. `window` is how many bytes of an answer it takes."""

    def __init__(self, address: str, path: str = INFER, encoding: str = "identity", window: int | None = None) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": address,
            "te": "trailers",
            "content-type": "application/grpc",
            "grpc-encoding": encoding,
        }
        block = b"".join(_literal(name, value) for name, value in fields.items())
        self.socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"" if window is None else struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))
            + _frame(_SETTINGS, _ACK, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, block)
        )

    def declare(self, size: int, compressed: bool = False) -> None:
        """The five bytes in front of a gRPC message."""
        self.write(struct.pack(">BI", compressed, size))

    def write(self, raw: bytes, end: bool = False) -> None:
        chunks = [raw[at : at + 16384] for at in range(0, len(raw), 16384)] or [b""]
        for index, chunk in enumerate(chunks):
            last = end and index == len(chunks) - 1
            self.socket.sendall(_frame(_DATA, _END_STREAM if last else 0, 1, chunk))

    def half_frame(self, claimed: int, raw: bytes) -> None:
        """A DATA frame of which only the beginning comes."""
        self.socket.sendall(_frame(_DATA, 0, 1, b"", claimed) + raw)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave without a goodbye: the server's next write meets an error."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes, claimed: int | None = None) -> bytes:
    length = len(payload) if claimed is None else claimed
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A field without indexing and without Huffman coding; all of ours are shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
