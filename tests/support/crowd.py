"""Users of the digits model in the background of a test: about fifty requests a second, each with an id of its own."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

import grpc

from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub
from turnout_wire.tensors import DataType, to_bytes
from zoo.samples import heldout

_PAUSE_S = 0.02
_REMEMBERED = 500
_DIRECT = (("grpc.enable_http_proxy", 0),)


class Crowd:
    """Sends while it is entered. A request that is refused is not sent again: what is tested may refuse."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._answered: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)

    def labels_csv(self) -> str:
        """The right labels of requests that were answered, as `turnoutctl feedback` reads them."""
        rows = [f"{inference_id},{label}" for inference_id, label in list(self._answered)]
        return "\n".join(["inference_id,label", *rows, ""])

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30)

    def _send(self) -> None:
        images, labels = heldout(2000)
        with grpc.insecure_channel(self._address, options=_DIRECT) as channel:
            infer = GRPCInferenceServiceStub(channel).ModelInfer
            number = 0
            while not self._stop.wait(_PAUSE_S):
                at = number % len(images)
                message = pb.ModelInferRequest(model_name="digits", id=f"user-{number}")
                message.inputs.add(name="image", datatype="FP32", shape=(1, 64))
                message.raw_input_contents.append(to_bytes(images[at : at + 1], DataType.FP32))
                number += 1
                try:
                    infer(message, timeout=5, metadata=(("turnout-sticky-key", f"u{at}"), ("x-user", f"u{at}")))
                except grpc.RpcError:
                    continue
                self._answered.append((message.id, int(labels[at])))
