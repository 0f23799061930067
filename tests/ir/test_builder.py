"""The builder: expressions as nodes, equal ones once, constants worked out, types and shapes known."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.errors import UnsupportedModel
from tests.ir.graphs import Bench

A = [[1.0, -2.0, 3.0]]


def test_expressions_read_like_mathematics() -> None:
    b = Bench("N", 3)
    g, x = b.g, b.x
    gelu = 0.5 * x * (1 + g.erf(x * 2**-0.5))
    other = -(abs(x) ** 2 - 3) / (x + 10)
    (first, second, third) = b.numbers(A, gelu, other, 1 / (1 + g.exp(-x)) - g.sigmoid(x))
    np.testing.assert_allclose(first, [[0.8413447, -0.0455003, 2.9959502]], rtol=1e-5)
    np.testing.assert_allclose(second, [[2 / 11, -1 / 8, -6 / 13]], rtol=1e-5)
    np.testing.assert_allclose(third, 0, atol=1e-6)
    assert [v.dtype for v in (gelu, other)] == [np.float32] * 2
    assert gelu.shape == ("N", 3)


def test_comparisons_and_logic() -> None:
    b = Bench("N", 3)
    g, x = b.g, b.x
    inside = (x > -2) & (x <= 3) | ~(x >= -2)
    found = b.numbers(A, g.mask(inside, x), g.where(x < 0, x, 7), g.mask(g.equal(x, 3), x))
    np.testing.assert_array_equal(found, [[[1, 0, 1]], [[7, -2, 7]], [[0, 0, 1]]])


def test_equal_expressions_are_one_node() -> None:
    b = Bench("N", 3)
    g, x = b.g, b.x
    with g.scope("first"):
        one = g.mask(x > 0, x) * x
    with g.scope("second"):
        two = g.mask(x > 0, x) * x
    assert one.tensor is two.tensor
    assert b.operators == ["Greater", "Cast", "Mul"]
    assert g.relu(x).tensor is b.y.tensor, "the model's own nodes are known too"
    assert g.op("LeakyRelu", x, alpha=0.1).tensor is not g.op("LeakyRelu", x, alpha=0.2).tensor
    assert g.op("LeakyRelu", x, alpha=0.1).tensor is g.op("LeakyRelu", x, alpha=0.1).tensor


def test_equal_constants_are_one_tensor_and_different_types_are_two() -> None:
    g = Bench("N", 3).g
    assert g.constant(1.0, np.float32).tensor is g.constant(np.float32(1)).tensor
    assert g.constant(1.0, np.float32).tensor is not g.constant(1.0, np.float64).tensor
    assert g.constant(0.0, np.float32).tensor is not g.constant(-0.0, np.float32).tensor
    assert g.ints([1]).tensor is not g.constant(np.int64(1)).tensor


def test_what_depends_on_small_constants_alone_is_computed_at_once() -> None:
    b = Bench("N", 3)
    g = b.g
    total = g.sum(g.constant([1.0, 2.0, 3.0], np.float32) * 2, [0])
    assert b.operators == []
    np.testing.assert_array_equal(g.values(total), [12])
    large = g.op("Expand", g.constant(1.0, np.float32), g.ints([100, 100]))
    assert not large.is_constant
    assert b.operators == ["Expand"]
    with pytest.raises(ValueError, match="computed at run time"):
        g.values(b.x)


def test_random_numbers_are_never_folded() -> None:
    b = Bench("N", 3)
    drawn = b.g.op("RandomNormalLike", b.g.constant([1.0], np.float32))
    assert not drawn.is_constant


def test_what_changes_nothing_emits_nothing() -> None:
    b = Bench("N", 3)
    g, x = b.g, b.x
    same = (x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1, x**1, x + g.constant([0.0], np.float32))
    assert all(each is x or each.tensor is x.tensor for each in same)
    nothing = (g.cast(x, x), g.squeeze(x, []), g.transpose(x, [0, 1]), g.reshape(x, ["N", 3]), g.sum(x, []))  # type: ignore[list-item]
    assert all(each.tensor is x.tensor for each in nothing)
    assert g.slice(x, [0], [3], [1]).tensor is x.tensor
    assert g.pad(x, [0], [0], [1]).tensor is x.tensor
    assert b.operators == []
    assert (0 - x).tensor is not x.tensor
    assert (1 / x).tensor is not x.tensor


def test_nodes_are_named_for_their_scope_and_names_are_unique() -> None:
    b = Bench("N", 3)
    with b.g.scope("place"):
        values = [b.g.op("LeakyRelu", b.x, alpha=a) for a in (0.1, 0.2, 0.3)]
        with b.g.scope("inner"):
            deep = b.g.exp(b.x)
    assert [v.name for v in values] == [f"onnxplain/place/LeakyRelu{s}" for s in ("", "_1", "_2")]
    assert deep.name == "onnxplain/inner/Exp"
    assert b.g.log(b.x).name == "onnxplain/Log"


def test_shapes_are_inferred_and_counted_where_known() -> None:
    b = Bench("N", 3, 4, 5)
    g, x = b.g, b.x
    assert g.mean(x, [2, 3]).shape == ("N", 3, 1, 1)
    assert g.sum(x, range(1, 4), keepdims=False).shape == ("N",)
    assert g.shape(x, 1).is_constant
    assert not g.shape(x).is_constant
    assert g.count(x, [1, 3], x) == 15
    assert not isinstance(g.count(x, [0], x), int)
    (sizes, count) = b.numbers(np.zeros((2, 3, 4, 5)), g.sizes(x, [3, 0]), g.count(x, [0, 1], x))  # type: ignore[arg-type]
    np.testing.assert_array_equal(sizes, [5, 2])
    assert count == 6


def test_a_value_of_unknown_rank_says_so() -> None:
    b = Bench("N", 3)
    unknown = b.g.wrap(b.y.tensor)
    unknown.tensor.shape = None
    with pytest.raises(UnsupportedModel, match="how many axes 'y' has is known only at run time"):
        _ = unknown.rank


@pytest.mark.parametrize(("like", "target"), [((2, 3), [2, 3]), (("N", 3), [-1, 3]), (("N", 3, "M"), None)])
def test_targets_of_reshapes_are_constants_where_one_size_is_open(like: tuple[int | str, ...], target: object) -> None:
    b = Bench(*like)
    found = b.g.target_shape(b.x)
    assert found.is_constant == (target is not None)
    if target is not None:
        np.testing.assert_array_equal(b.g.values(found), target)


def test_a_size_of_zero_is_not_written_as_keep() -> None:
    b = Bench("N", 0, 3)
    assert not b.g.target_shape(b.x).is_constant
    flat = b.g.reshape(b.x, [-1])
    (back,) = b.numbers(np.zeros((2, 0, 3)), b.g.reshape_like(flat, b.x))
    assert back.shape == (2, 0, 3)


def test_stabilise_keeps_the_sign_and_counts_zero_as_positive() -> None:
    b = Bench("N", 3)
    (moved, guarded) = b.numbers([[2, -2, 0]], b.g.stabilise(b.x, 0.5), b.g.stabilise(b.x, 0))
    np.testing.assert_array_equal(moved, [[2.5, -2.5, 0.5]])
    np.testing.assert_array_equal(guarded, [[2, -2, 1]])


def test_named_fills_in_what_inference_could_not_find_and_never_contradicts_it() -> None:
    b = Bench("N", 6)
    open_ended = b.g.reshape(b.x, b.g.concat([b.g.shape(b.x, 0, 1), b.g.ints([2, -1])], axis=0))
    assert b.g.named(open_ended, ["N", 2, 3]).shape == ("N", 2, 3)
    assert b.g.named(b.x, ["M", 7]).shape == ("M", 6)


def test_a_name_is_published_whatever_else_shares_the_tensor() -> None:
    b = Bench("N", 3)
    first, second = b.g.publish(b.y, "first"), b.g.publish(b.y, "second")
    assert (first.name, second.name, b.y.name) == ("first", "second", "y")
    assert b.operators == ["Identity", "Identity"]
