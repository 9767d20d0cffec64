"""The gRPC edge: the only package that knows grpc and protobuf messages. None of either passes beyond it."""
