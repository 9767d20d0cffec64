"""Clients of a Turnout server. Data plane: `Client` (blocking), `aio` (asyncio). Admin plane: `admin`, declared states
(`desired`, `plan`), `turnoutctl`. What is named here is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnout_client import aio
    from turnout_client.admin import AdminClient
    from turnout_client.answers import Answer
    from turnout_client.errors import AdminError, InferenceError
    from turnout_client.settings import Keepalive, Retry, Streams, Tls
    from turnout_client.sync import Client

__all__ = [
    "AdminClient",
    "AdminError",
    "Answer",
    "Client",
    "InferenceError",
    "Keepalive",
    "Retry",
    "Streams",
    "Tls",
    "aio",
]

# turnoutctl completes names as people type: it must not wait for numpy.
_HOMES = {
    "AdminClient": "admin",
    "AdminError": "errors",
    "Answer": "answers",
    "Client": "sync",
    "InferenceError": "errors",
    "Keepalive": "settings",
    "Retry": "settings",
    "Streams": "settings",
    "Tls": "settings",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"turnout_client.{_HOMES[name]}"), name)
    if name == "aio":
        return import_module("turnout_client.aio")
    raise AttributeError(f"module 'turnout_client' has no attribute {name!r}")
