"""The model zoo: small ONNX models with known quality, labelled samples, and networks for load tests."""
