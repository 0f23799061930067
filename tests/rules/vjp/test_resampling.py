"""Resampling. Where torch has no such coordinates, differences of ONNX's own implementation serve; it is linear."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch.nn.functional as F

from tests.rules.harness import ALWAYS, DYNAMIC, SIZED, STATIC, Case, against_torch, case, factors
from tests.running import explained, net


def by(x: tuple[int, ...], scales: list[float], like: str = "", **attributes: Any) -> Case:
    """A Resize by factors."""
    function = interpolation(like, scale_factor=tuple(scales[2:]))
    shapes = SIZED if beyond_oracle(attributes) else ALWAYS
    text = f'y = Resize{written(attributes)}(x, "", scales)'
    return case("Resize", text, function, x=x, scales=factors(scales), shapes=shapes, double=places(like))


def to(x: tuple[int, ...], sizes: list[int], like: str = "", **attributes: Any) -> Case:
    """A Resize to sizes, the first of which is the batch's."""
    function = interpolation(like, size=tuple(sizes[2:]))
    shapes = (STATIC,) if beyond_oracle(attributes) else ALWAYS
    text = f'y = Resize{written(attributes)}(x, "", "", sizes)'
    return case("Resize", text, function, x=x, sizes=sizes, shapes=shapes, double=places(like))


def beyond_oracle(attributes: dict[str, Any]) -> bool:
    """Whether the oracle lacks the form, with which the graph makes the matrix where sizes are not known beforehand."""
    return attributes.get("mode") == "cubic" or "antialias" in attributes


def written(attributes: dict[str, Any]) -> str:
    names = {"at": "coordinate_transformation_mode", "side": "nearest_mode"}
    listed = [f'{names.get(k, k)}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in attributes.items()]
    return f"<{', '.join(listed)}>" if listed else ""


def interpolation(like: str, **target: Any) -> Any:
    """torch's own, such as "bilinear" or, with its corners aligned, "bilinear corners"; None where it has none."""
    mode, _, corners = like.partition(" ")
    how = {"align_corners": bool(corners)} if mode not in ("", "nearest") else {}
    return (lambda x: F.interpolate(x, mode=mode, **target, **how)) if mode else None


def places(like: str) -> float:
    """Of bicubic, torch takes the places between pixels in float32."""
    return 1e-6 if like.startswith("bicubic") else 1e-9


CASES = [
    by((1, 2, 3, 4), [1, 1, 2, 2], "nearest"),
    by((1, 2, 3, 4), [1, 1, 2, 3], "nearest", at="asymmetric", side="floor"),
    by((1, 2, 4, 6), [1, 1, 1.5, 0.5], at="asymmetric", side="ceil"),
    by((1, 2, 3, 4), [1, 1, 2, 0.5], side="round_prefer_ceil"),
    by((1, 2, 3, 4), [1, 1, 2, 2.5], at="align_corners"),
    by((1, 2, 7, 4), [1, 1, 1.5, 0.75], "bilinear corners", mode="linear", at="align_corners"),
    by((1, 2, 7, 7), [1, 1, 1.5, 1.5], "bicubic corners", mode="cubic", at="align_corners", cubic_coeff_a=-0.75),
    to((1, 2, 3, 5), [1, 2, 7, 3], "nearest", at="asymmetric", side="floor"),
    by((1, 2, 3, 4), [1, 1, 3, 2], "nearest"),
    to((2, 2), [2, 4]),
    by((1, 2, 3, 4), [1, 1, 2, 2], "bilinear", mode="linear"),
    by((2, 2, 4, 3), [1, 1, 1.5, 3], "bilinear", mode="linear", at="pytorch_half_pixel"),
    by((1, 2, 3, 4), [1, 1, 2, 0.75], mode="linear", at="asymmetric"),
    by((1, 2, 4, 5), [1, 1, 1.3, 0.7], mode="linear", at="half_pixel_symmetric"),
    by((2, 3, 4), [1, 1, 2.5], "linear", mode="linear"),
    by((1, 2, 2, 3, 2), [1, 1, 2, 2, 2], "trilinear", mode="linear"),
    by((1, 2, 8, 6), [1, 1, 0.5, 0.5], mode="linear", antialias=1),
    by((1, 2, 3, 4), [1, 1, 1, 2], "bilinear", mode="linear"),
    to((1, 2, 3, 4), [1, 2, 7, 5], "bilinear corners", mode="linear", at="align_corners"),
    to((2, 2, 6, 7), [2, 2, 3, 5], "bilinear", mode="linear"),
    to((1, 2, 3, 4), [1, 2, 6, 4], "bilinear", mode="linear"),
    to((1, 2, 3, 4), [1, 2, 1, 5], mode="linear", at="align_corners"),
    to((1, 2, 4, 7), [1, 2, 6, 5], "bicubic", mode="cubic"),
    to((1, 2, 4, 5), [1, 2, 6, 9], "bicubic corners", mode="cubic", at="align_corners"),
    by((1, 2, 4, 4), [1, 1, 2, 1.5], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    by((1, 2, 3, 4), [1, 1, 2, 2], mode="cubic", at="asymmetric"),
    case("Resize", 'y = Resize<mode="cubic">(x, "", scales)', interpolation("bicubic", scale_factor=(2, 1.5)),
         x=(1, 2, 4, 6), scales=factors([1, 1, 2, 1.5]), shapes=(DYNAMIC,), double=None),
    case("Resize", 'y = Resize<mode="linear", antialias=1>(x, "", scales)', None,
         x=(1, 2, 8, 6), scales=factors([1, 1, 0.5, 0.5]), shapes=(DYNAMIC,), double=None),
    case("Resize", 'y = Resize<axes=[2,3], mode="linear">(x, "", scales)', interpolation("bilinear", scale_factor=2),
         x=(1, 2, 3, 4), scales=factors([2, 2])),
    case("Resize", 'y = Resize<axes=[3], mode="linear">(x, "", "", sizes)', interpolation("bilinear", size=(3, 7)),
         x=(1, 2, 3, 4), sizes=[7]),
    case("Resize", 's = Shape<end=2>(x); to = Concat<axis=0>(s, hw); y = Resize<mode="linear">(x, "", "", to)',
         interpolation("bilinear", size=(5, 2)), x=(2, 2, 3, 4), hw=[5, 2]),
]  # fmt: skip

test_derivative = against_torch(CASES)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_one_element_alone_is_read_where_the_runtime_reads_it(mode: str) -> None:
    """Not where torch and ONNX's own implementation read it: the runtime takes the first."""
    text = f"""g (float[2,1,5,4] x) => (float[2,1] y) <int64[4] sizes = {{2, 1, 1, 3}}, int64[2] axes = {{2, 3}}> {{
        r = Resize<mode = "{mode}", coordinate_transformation_mode = "pytorch_half_pixel">(x, "", "", sizes)
        y = ReduceSum<keepdims = 0>(r, axes) }}"""
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 4)).astype(np.float32)
    returned = explained(net(text), x)
    for at in np.ndindex(1, 5, 4):
        moved = x.copy()
        moved[:, *at] += 1
        change = explained(net(text), moved)["y"] - returned["y"]
        np.testing.assert_allclose(returned["attribution"][:, *at], change[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "asked", "sizes", "coordinates"),
    [
        ("not_larger", (9, 9), (6, 9), "half_pixel"),
        ("not_larger", (3, 3), (2, 3), "asymmetric"),
        ("not_smaller", (6, 6), (6, 9), "half_pixel"),
        ("not_smaller", (9, 9), (9, 14), "align_corners"),
        ("not_larger", (4, 9), (4, 6), "half_pixel"),
    ],
)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_sizes_that_keep_the_proportions(
    policy: str, asked: tuple[int, int], sizes: tuple[int, int], coordinates: str, mode: str
) -> None:
    """The same as the sizes that come of it; aligned corners depend on those alone, be they rounded up."""

    def network(wanted: tuple[int, int], attributes: str) -> onnx.ModelProto:
        return net(f"""g (float[N,1,4,6] x) => (float[N,2] y)
            <int64[2] sizes = {{{wanted[0]}, {wanted[1]}}}, float[1,2] w = {{1, -2}}> {{
            r = Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}", axes=[2, 3]{attributes}>
                (x, "", "", sizes)
            q = Mul(r, r) p = GlobalAveragePool(q) f = Flatten(p) y = MatMul(f, w) }}""")

    x = np.random.default_rng(0).standard_normal((2, 1, 4, 6)).astype(np.float32)
    kept = explained(network(asked, f', keep_aspect_ratio_policy="{policy}"'), x, target=0)
    plain = explained(network(sizes, ""), x, target=0)
    np.testing.assert_allclose(kept["y"], plain["y"], rtol=1e-6)
    np.testing.assert_allclose(kept["attribution"], plain["attribution"], rtol=1e-5, atol=1e-6)
