"""What runs models: ONNX Runtime, a synthetic stand-in, and the threads that drive either."""
