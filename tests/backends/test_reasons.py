"""ONNX Runtime's error texts, as it writes them, and what an operator reads of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.backends.onnx.reasons import reason

SOURCE = "/onnxruntime_src/onnxruntime/core"
FAIL = "[ONNXRuntimeError] : 1 : FAIL : "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{FAIL}Failed to load model because protobuf parsing failed.",
            "Failed to load model because protobuf parsing failed.",
        ),
        (
            f"{FAIL}Load model from /srv/models/m/1/model.onnx failed:Protobuf parsing failed.",
            "Load model from <path> failed:Protobuf parsing failed.",
        ),
        (
            f"{FAIL}{SOURCE}/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::"
            "PathString&, const std::function<void(int)>&) Unsupported model IR version: 99, max supported: 13",
            "Unsupported model IR version: 99, max supported: 13",
        ),
        (
            f"[ONNXRuntimeError] : 10 : INVALID_GRAPH : {SOURCE}/graph/model.cc:340 onnxruntime::Model::Model(int) "
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Model local function definitions must not be recursive.",
            "Model local function definitions must not be recursive.",
        ),
        (
            f"{FAIL}Exception during initialization: {SOURCE}/providers/cpu/math/element_wise_ops.h:256 onnxruntime::"
            "Div<T>::Div(const onnxruntime::OpKernelInfo&) [with T = int] b_data[i] != T{0} was false. Integer "
            "division by zero\n",
            "Exception during initialization: b_data[i] != T{0} was false. Integer division by zero",
        ),
        (
            f"{FAIL}graph.cc:4441 InjectExternalInitializersFromFilesInMemory External file: w.bin not found",
            "External file: w.bin not found",
        ),
        (
            f"{FAIL}{SOURCE}/a.cc:1 void f(const char*) const\nExpected \"/etc/x\" or '/y'",
            "Expected \"<path>\" or '<path>'",
        ),
        (f"{FAIL}{SOURCE}/a.cc:1 void f(const char*", ""),  # cut off in its middle
        ("in model.cc:12", "in model.cc:12"),
        ("", ""),
    ],
)
def test_reason(text: str, said: str) -> None:
    assert reason(RuntimeError(text)) == said


def test_it_is_short() -> None:
    assert len(reason(RuntimeError("x " * 1000))) == 400


@given(st.text(st.sampled_from("/a.cc:1 ()<>[]")) | st.text())
def test_any_text_has_a_reason_without_a_path(text: str) -> None:
    said = reason(RuntimeError(f"{text} {SOURCE}/x.cc:3 f({text}"))
    assert "onnxruntime_src" not in said and len(said) <= 400
