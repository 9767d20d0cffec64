"""Is sent into the container and run there: one request to digits, on the generated stubs that the image holds."""

import grpc

from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub
from turnout_wire.tensors import DataType, from_raw

request = pb.ModelInferRequest(model_name="digits")
request.inputs.add(name="image", datatype="FP32", shape=[1, 64])
request.raw_input_contents.append(bytes(4 * 64))
with grpc.insecure_channel("127.0.0.1:8001", options=[("grpc.enable_http_proxy", 0)]) as channel:
    answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
label = from_raw(answer.raw_output_contents[0], DataType(answer.outputs[0].datatype), answer.outputs[0].shape)
print(f"version {answer.model_version} in slot {answer.parameters['turnout_slot'].string_param} answered", label.shape)
