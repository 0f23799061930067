"""Where ONNX Runtime would run the nodes of a graph, told without a card: from a table of its kernels."""
