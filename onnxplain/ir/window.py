"""How a window slides over space, as the attributes of convolutions and pools say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from onnxplain.ir.site import Site


@dataclass(frozen=True)
class Window:
    """How a window slides, with one number for each spatial axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]

    @staticmethod
    def of(s: Site) -> Window:
        """The window of a convolution or pooling.

        Raises: UnsupportedOp where pads or the kernel's sizes are only known at run time.
        """
        given = s.attr("kernel_shape") or s[1].shape[2:]
        if left := s.y.g.model.left.get(s.name):
            raise s.refused(f"with {left.rstrip('.')}")
        if s.attr("auto_pad", "NOTSET") != "NOTSET":
            raise s.unsized(f"with auto_pad={s.attr('auto_pad')} and sizes")
        if not all(isinstance(k, int) for k in given):
            raise s.unsized("whose kernel has sizes")
        return Window.of_node(s.node)

    @staticmethod
    def of_node(node: gs.Node) -> Window:
        """The same where the kernel's sizes are known. Its pads count if there is no auto_pad."""
        kernel = list(node.attrs.get("kernel_shape") or list(node.inputs[1].shape)[2:])
        n = len(kernel)
        pads = list(node.attrs.get("pads", [0] * 2 * n))
        strides, dilations = (list(node.attrs.get(name, [1] * n)) for name in ("strides", "dilations"))
        return Window(kernel, strides, dilations, pads[:n], pads[n:])

    @property
    def pads(self) -> list[int]:
        return [*self.before, *self.after]

    @property
    def reach(self) -> list[int]:
        """How many elements lie under the window from end to end, holes of dilation included."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def overlaps(self) -> bool:
        """Whether an element can lie under two windows."""
        return any(reach > stride for reach, stride in zip(self.reach, self.strides, strict=True))


def pool_attributes(pool: gs.Node) -> dict[str, Any]:
    """A MaxPool's attributes for another pool of the same windows; indices count row by row here, whatever it says."""
    return {name: value for name, value in pool.attrs.items() if name != "storage_order"}
