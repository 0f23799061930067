"""What is measured or asked of ONNX Runtime's CUDA provider."""
