"""Every graph rewrite, imported only as onnxplain.passes."""
