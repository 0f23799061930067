"""Reading a picture at computed places."""

import torch.nn.functional as F

from tests.rules.harness import Case, against_torch, between, case, constant


def reading(x: tuple[int, ...], places: tuple[int, ...], mode: str, padding: str, corners: int) -> Case:
    """Some places lie outside of the picture."""
    named = {"linear": "bilinear"}.get(mode, mode)
    return case(
        "GridSample",
        f'y = GridSample<mode="{mode}", padding_mode="{padding}", align_corners={corners}>(x, grid)',
        lambda x, grid: F.grid_sample(x, grid, mode=named, padding_mode=padding, align_corners=bool(corners)),
        x=x,
        grid=between(-1.2, 1.2, *places),
        double=None if mode == "nearest" else 1e-9,
    )


CASES = [
    *(
        reading((2, 3, 4, 5), (2, 3, 2, 2), "linear", padding, corners)
        for padding in ("zeros", "border")
        for corners in (0, 1)
    ),
    reading((1, 2, 3, 4, 3), (1, 2, 3, 2, 3), "linear", "zeros", 0),
    case(
        "GridSample",
        'y = GridSample<mode="nearest">(x, grid)',
        lambda x, grid: F.grid_sample(x, grid, mode="nearest", align_corners=False),
        x=(2, 3, 4, 5),
        grid=constant((2, 3, 2, 2)),
    ),
]

test_derivative = against_torch(CASES)
