"""Reading a picture at computed places."""

import torch.nn.functional as F

from tests.rules.harness import Case, against_torch, between, case, constant


def reading(x: tuple[int, ...], places: tuple[int, ...], mode: str, padding: str, corners: int) -> Case:
    """Some places lie outside of the picture."""
    named = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return case(
        "GridSample",
        f'y = GridSample<mode="{mode}", padding_mode="{padding}", align_corners={corners}>(x, grid)',
        lambda x, grid: F.grid_sample(x, grid, mode=named, padding_mode=padding, align_corners=bool(corners)),
        x=x,
        grid=between(-1.2, 1.2, *places),
        double=None if mode == "nearest" else 1e-9,
    )


def far(padding: str, corners: int) -> Case:
    """Places many pictures away, from which the mirrors throw back and forth; one axis has a single element."""
    return case(
        "GridSample",
        f'y = GridSample<padding_mode="{padding}", align_corners={corners}>(x, grid)',
        lambda x, grid: F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=bool(corners)),
        x=(1, 2, 1, 5),
        grid=between(-6, 6, 1, 4, 5, 2),
        # In float32 a place ten elements away keeps five of the seven digits of its part.
        single=1e-4,
    )


CASES = [
    *(
        reading((2, 3, 4, 5), (2, 3, 2, 2), mode, padding, corners)
        for mode in ("linear", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
    reading((1, 2, 3, 4, 3), (1, 2, 3, 2, 3), "linear", "zeros", 0),
    reading((1, 2, 3, 4, 3), (1, 2, 3, 2, 3), "linear", "reflection", 1),
    far("reflection", 0),
    far("reflection", 1),
    *(
        case(
            "GridSample",
            f'y = GridSample<mode="nearest", padding_mode="{padding}", align_corners={corners}>(x, grid)',
            lambda x, grid, padding=padding, corners=corners: F.grid_sample(
                x, grid, mode="nearest", padding_mode=padding, align_corners=bool(corners)
            ),
            x=(2, 3, 4, 5),
            grid=constant((2, 3, 2, 2)),
        )
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
]

test_derivative = against_torch(CASES)
