"""Endpoints and settings as gRPC takes them: target, channel options with a service config, credentials.

What gRPC can do itself is left to it: balancing, health checks, reconnecting, and the retries of unary calls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import grpc

from turnout_client.errors import RETRYABLE
from turnout_client.settings import Keepalive, Retry, Settings, Tls
from turnout_wire.service import SERVICE

_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_STREAM = "ModelStreamInfer"


@dataclass(frozen=True, slots=True)
class Target:
    """What gRPC connects to. `balanced`: calls go to all of its addresses in turn, as far as they are healthy."""

    name: str
    balanced: bool


def target_of(endpoint: str | Sequence[str]) -> Target:
    """`HOST:PORT` is one connection; `dns:///NAME:PORT` all addresses of a name; a list its members.

    Raises:
        ValueError: it is none of these.
    """
    if not isinstance(endpoint, str):
        return _list_of(list(endpoint))
    if endpoint.startswith(_SCHEMES):
        return Target(endpoint, endpoint.startswith("dns:") or "," in endpoint)
    _host_port(endpoint)
    return Target(endpoint, False)


def channel_options(target: Target, settings: Settings) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        # Servers are near by, or in a cluster: a proxy for the outer world has no business between.
        "grpc.enable_http_proxy": 0,
        "grpc.max_send_message_length": -1,
        "grpc.max_receive_message_length": -1,
        "grpc.service_config": _service_config(target, settings.retry),
        # gRPC's 1 s and 120 s are for the Internet: a server that restarts is back sooner.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 5000,  # how long one attempt to connect may take
        "grpc.max_reconnect_backoff_ms": 2000,
        "grpc.dns_min_time_between_resolutions_ms": 5000,
    }
    if settings.retry is not None:
        options["grpc.per_rpc_retry_buffer_size"] = settings.retry.message_bytes_max
    options |= _keepalive(settings.keepalive)
    if settings.tls is not None and settings.tls.server_name:
        options["grpc.ssl_target_name_override"] = settings.tls.server_name
    return list((options | dict(settings.options)).items())


def credentials_of(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate)


def _service_config(target: Target, retry: Retry | None) -> str:
    config: dict[str, object] = {"loadBalancingConfig": [{"pick_first": {}}]}
    if target.balanced:
        config = {
            "loadBalancingConfig": [{"round_robin": {}}],
            # A Watch on each connection; a server without the service counts as healthy.
            "healthCheckConfig": {"serviceName": SERVICE},
        }
    if retry is not None and retry.attempts_max > 1:
        policy = {
            "maxAttempts": retry.attempts_max,
            "initialBackoff": f"{retry.backoff_s:.3f}s",
            "maxBackoff": f"{retry.backoff_s_max:.3f}s",
            "backoffMultiplier": retry.backoff_multiplier,
            "retryableStatusCodes": list(RETRYABLE),
        }
        config["methodConfig"] = [
            {"name": [{"service": SERVICE}], "retryPolicy": policy},
            {"name": [{"service": SERVICE, "method": _STREAM}]},  # a stream is opened again by its pool
        ]
        config["retryThrottling"] = {"maxTokens": retry.tokens_max, "tokenRatio": round(retry.token_ratio, 3)}
    return json.dumps(config)


def _keepalive(keepalive: Keepalive | None) -> dict[str, int | str]:
    if keepalive is None:
        return {}
    return {
        "grpc.keepalive_time_ms": int(keepalive.interval_s * 1000),
        "grpc.keepalive_timeout_ms": int(keepalive.timeout_s * 1000),
        "grpc.keepalive_permit_without_calls": int(keepalive.without_calls),
        "grpc.http2.max_pings_without_data": 0,  # no bound beside the interval: gRPC's own would end the pings
    }


def _list_of(endpoints: list[str]) -> Target:
    if not endpoints:
        raise ValueError("no endpoint: give HOST:PORT")
    if len(endpoints) == 1:
        return target_of(endpoints[0])
    addresses: list[str] = []
    families: set[int] = set()
    for endpoint in endpoints:
        host, port = _host_port(endpoint)
        try:
            address: IPv4Address | IPv6Address = ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            raise ValueError(
                f"endpoint '{endpoint}': a list of endpoints takes IP addresses, because gRPC looks up one name only: "
                "give one name that has all addresses, as dns:///NAME:PORT"
            ) from None
        families.add(address.version)
        addresses.append(f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}")
    if len(families) > 1:
        raise ValueError("endpoints are IPv4 and IPv6, and gRPC takes a list of one family: leave out the others")
    return Target(f"ipv{families.pop()}:{','.join(addresses)}", True)


def _host_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"endpoint '{endpoint}' is no HOST:PORT, such as 127.0.0.1:8001")
    return host, int(port)
