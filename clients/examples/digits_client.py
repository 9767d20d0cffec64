"""Client of the model 'digits', written by `turnoutctl codegen`. Change the model, not this file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from turnout_client import Client, aio
from turnout_client.answers import Answer
from turnout_client.typed import output, tensor
from turnout_wire.tensors import DataType

MODEL = "digits"


@dataclass(frozen=True, slots=True)
class DigitsAnswer:
    """What 'digits' answers.

    Attributes:
        probabilities: FP32 [rows, 10].
        label: INT64 [rows, 1].
        answer: who gave it: version, slot, revision, generation, inference_id.
    """

    probabilities: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    answer: Answer


class DigitsClient:
    """Calls 'digits' through a client, which brings connections, deadlines, retries and streams."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def predict(
        self,
        image: npt.ArrayLike,
        *,
        key: str = "",
        version: str | int = "",
        slot: str = "",
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> DigitsAnswer:
        """One inference. What is no tensor is as in `turnout_client.Client.infer`.

        Args:
            image: FP32 [rows, 64], at most 32 rows.

        Raises:
            InferenceError: there is no answer.
            ValueError: an input is not what the model takes; the message begins with its name.
        """
        inputs = _inputs(image)
        return _answer(
            self._client.infer(
                MODEL, inputs, key=key, version=version, slot=slot, request_id=request_id, timeout_s=timeout_s
            )
        )


class AioDigitsClient:
    """The same on an event loop."""

    def __init__(self, client: aio.Client) -> None:
        self._client = client

    async def predict(
        self,
        image: npt.ArrayLike,
        *,
        key: str = "",
        version: str | int = "",
        slot: str = "",
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> DigitsAnswer:
        """As `DigitsClient.predict`."""
        inputs = _inputs(image)
        return _answer(
            await self._client.infer(
                MODEL, inputs, key=key, version=version, slot=slot, request_id=request_id, timeout_s=timeout_s
            )
        )


def _inputs(
    image: npt.ArrayLike,
) -> dict[str, npt.ArrayLike]:
    inputs: dict[str, npt.ArrayLike] = {}
    inputs["image"] = tensor("image", image, DataType.FP32, (-1, 64))
    return inputs


def _answer(answer: Answer) -> DigitsAnswer:
    return DigitsAnswer(
        output(answer, "probabilities", "probabilities", DataType.FP32),
        output(answer, "label", "label", DataType.INT64),
        answer,
    )
