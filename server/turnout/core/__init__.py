"""Pure decisions: no await, clock, chance, files, logs, locks, gRPC or ONNX Runtime. Time and chance are arguments."""
