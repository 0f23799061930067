"""An independent computation of any ONNX classifier and its gradients, to hold the compiler's results against.

It shares nothing with the project's own rules: each operator is written from the ONNX specification with torch's
forward operators, and the derivatives are torch.autograd's.
"""

import torch

from .backward import deconv_relu, gradient, guided_relu, logits_name
from .interpreter import Oracle, input_names
from .registry import UnknownOperator

__all__ = ["Oracle", "UnknownOperator", "deconv_relu", "gradient", "guided_relu", "input_names", "logits_name"]

# torch's threads wait for one another in a busy loop: where the cores are shared, two take four times as long as one.
torch.set_num_threads(1)
