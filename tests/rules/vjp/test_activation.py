"""One-input non-linearities. Attributes are sums of powers of two where they can be: ONNX keeps them in float32."""

import numpy as np
import torch
import torch.nn.functional as F

from onnxplain.compiler import compile_model
from tests.rules.harness import against_torch, between, case, constant, real
from tests.running import net, run

WIDE = between(-5, 5, 4, 7)
"""Draws on both sides of every bend."""

SATURATED = between(-9, -6, 4, 7)
"""Where the function has all but reached its bound, and its slope is what float32 must not lose."""

BENDS = real([[-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6]])

CASES = [
    case("Relu", "y = Relu(x)", F.relu, x=WIDE),
    case("Relu", "y = Relu(x)", F.relu, x=BENDS),
    case("LeakyRelu", "y = LeakyRelu(x)", lambda x: F.leaky_relu(x, 0.01), x=WIDE, double=1e-7),
    case("LeakyRelu", "y = LeakyRelu<alpha=0.25>(x)", lambda x: F.leaky_relu(x, 0.25), x=BENDS),
    case("LeakyRelu", "y = LeakyRelu<alpha=-0.5>(x)", lambda x: F.leaky_relu(x, -0.5), x=WIDE),
    case("PRelu", "y = PRelu(x, slope)", lambda x, slope: x.relu() + slope * x.clamp(max=0), x=(2, 3, 4), slope=(3, 1)),
    case("PRelu", "y = PRelu(x, slope)", lambda x, slope: x.relu() + slope * x.clamp(max=0), x=(2, 3, 4), slope=(1,)),
    case("PRelu", "y = PRelu(x, slope)", lambda x, slope: x.relu() + slope * x.clamp(max=0), x=(2, 3), slope=(2, 3)),
    case("PRelu", "y = PRelu(x, slope)", lambda x, slope: x.relu() + slope * x.clamp(max=0),
         x=(2, 3, 4, 5), slope=constant((3, 1, 1))),
    case("ThresholdedRelu", "y = ThresholdedRelu(x)", lambda x: F.threshold(x, 1, 0), x=BENDS),
    case("ThresholdedRelu", "y = ThresholdedRelu<alpha=0.5>(x)", lambda x: F.threshold(x, 0.5, 0), x=WIDE),
    case("Shrink", "y = Shrink(x)", lambda x: x * (x.abs() > 0.5), x=BENDS),
    case("Shrink", "y = Shrink<lambd=2.0, bias=2.0>(x)", lambda x: F.softshrink(x, 2), x=WIDE),
    case("Elu", "y = Elu(x)", F.elu, x=WIDE),
    case("Elu", "y = Elu<alpha=0.75>(x)", lambda x: F.elu(x, 0.75), x=WIDE),
    case("Elu", "y = Elu(x)", F.elu, x=SATURATED),
    case("Elu", "y = Elu<alpha=0.75>(x)", lambda x: F.elu(x, 0.75), x=SATURATED),
    case("Selu", "y = Selu(x)", F.selu, x=WIDE, double=1e-7),
    case("Selu", "y = Selu(x)", F.selu, x=SATURATED, double=1e-7),
    case("Selu", "y = Selu<alpha=1.5, gamma=1.25>(x)",
         lambda x: 1.25 * torch.where(x > 0, x, 1.5 * x.exp() - 1.5), x=WIDE),
    case("Celu", "y = Celu(x)", F.celu, x=WIDE, double=None),
    case("Celu", "y = Celu<alpha=2.0>(x)", lambda x: F.celu(x, 2), x=WIDE, double=None),
    case("Celu", "y = Celu(x)", F.celu, x=SATURATED, double=None),
    case("Sigmoid", "y = Sigmoid(x)", torch.sigmoid, x=WIDE),
    case("Tanh", "y = Tanh(x)", torch.tanh, x=WIDE),
    case("Tanh", "y = Tanh(x)", torch.tanh, x=SATURATED),
    case("Tanh", "y = Tanh(x)", torch.tanh, x=between(6, 9, 4, 7)),
    case("Softplus", "y = Softplus(x)", F.softplus, x=WIDE),
    case("Softplus", "y = Softplus(x)", F.softplus, x=SATURATED),
    case("Softsign", "y = Softsign(x)", F.softsign, x=WIDE),
    case("HardSigmoid", "y = HardSigmoid(x)", lambda x: (0.2 * x + 0.5).clamp(0, 1), x=WIDE, double=1e-7),
    case("HardSigmoid", "y = HardSigmoid<alpha=0.125, beta=0.25>(x)", lambda x: (0.125 * x + 0.25).clamp(0, 1), x=WIDE),
    case("HardSwish", "y = HardSwish(x)", F.hardswish, x=WIDE),
    case("Gelu", "y = Gelu(x)", F.gelu, x=WIDE),
    case("Gelu", 'y = Gelu<approximate="tanh">(x)', lambda x: F.gelu(x, approximate="tanh"), x=WIDE),
    case("Mish", "y = Mish(x)", F.mish, x=WIDE),
    case("Mish", "y = Mish(x)", F.mish, x=SATURATED),
    case("Mish", "y = Mish(x)", F.mish, x=between(-80, 80, 4, 7)),
    case("Erf", "y = Erf(x)", torch.erf, x=(3, 4)),
    case("Softmax", "y = Softmax(x)", lambda x: x.softmax(-1), x=(2, 3, 4)),
    case("Softmax", "y = Softmax<axis=1>(x)", lambda x: x.softmax(1), x=(2, 3, 4)),
    case("Softmax", "y = Softmax<axis=0>(x)", lambda x: x.softmax(0), x=(2, 3, 4)),
    case("Softmax", "y = Softmax<axis=-2>(x)", lambda x: x.softmax(-2), x=(2, 3, 4)),
    case("LogSoftmax", "y = LogSoftmax(x)", lambda x: x.log_softmax(-1), x=(2, 3, 4)),
    case("LogSoftmax", "y = LogSoftmax<axis=1>(x)", lambda x: x.log_softmax(1), x=(2, 3, 4)),
    case("LogSoftmax", "y = LogSoftmax<axis=-3>(x)", lambda x: x.log_softmax(0), x=(2, 3, 4)),
]  # fmt: skip

test_derivative = against_torch(CASES)


def test_the_slope_of_the_approximate_gelu_is_more_exact_than_its_value() -> None:
    """ONNX Runtime computes it by a hyperbolic tangent, to 1e-7 of one, from which far below zero no slope follows."""
    model = net("""g (float[N, 1] x) => (float[N, 1] y) <float[1, 1] one = {1}> {
        s = Gelu<approximate = "tanh">(x) y = MatMul(s, one) }""")
    x = np.linspace(-20, 20, 401, dtype=np.float32)[:, None]
    found = run(compile_model(model, "gradient"), x)["attribution"]
    exact = torch.from_numpy(x).double().requires_grad_()
    F.gelu(exact, approximate="tanh").sum().backward()
    np.testing.assert_allclose(found, exact.grad, rtol=1e-4, atol=1e-11)
