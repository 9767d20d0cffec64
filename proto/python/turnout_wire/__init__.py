"""The wire: tensors as bytes (`tensors`), the data plane's RPCs (`service`), their public `descriptors`.

This package itself imports nothing, so that code which needs only `tensors` never loads protobuf or gRPC.
"""
