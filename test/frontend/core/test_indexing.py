from __future__ import annotations

import numpy as np
import pytest

import mgec as mge

X = np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5)
I = np.array([2, 0, -1])  # noqa: E741
MASK = X[0, :, :, 0] % 3 == 0

INDICES = [
    0, -1, np.int64(1), slice(None), slice(1, None), slice(None, None, -1), slice(None, None, 2),
    Ellipsis, None, (), (1, 2), (0, Ellipsis, 3), (slice(None), slice(2, 0, -1)), (None, 1, None),
    (Ellipsis, None), (slice(0, 0),), (slice(5, 2),), (slice(None), slice(None), slice(-3, -1)),
    (slice(None), I), (slice(None), I, 1), (0, I), (0, slice(None), I), (slice(None), I, I),
    (0, slice(None), slice(None), I), (slice(None), I, slice(None), I), (I[:2] % 2, None, I[:2]),
    (1, Ellipsis, I), (slice(None), [0, 2]), ([1],), (slice(None), I[:, None], I[None] % 4),
    (slice(None), MASK), (0, MASK), (X > 50,), (X[:, 0, 0, 0] > 10,), (slice(None), np.array(2)),
    (slice(None), np.zeros(0, "int32")), (slice(None), slice(None, None, 2), I % 4),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_getitem_is_numpys(index: object) -> None:
    np.testing.assert_array_equal(mge.tensor(X)[index].numpy(), X[index])


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_setitem_is_numpys(index: object, full: bool) -> None:
    expected, x = X.copy(), mge.tensor(X)
    value = -np.arange(X[index].size, dtype="float32").reshape(X[index].shape) if full else -1.0
    expected[index] = value
    x[index] = mge.tensor(value) if full else value
    np.testing.assert_array_equal(x.numpy(), expected)


def test_tensor_indices() -> None:
    x, i = mge.tensor(X), mge.tensor(I)
    np.testing.assert_array_equal(x[:, i].numpy(), X[:, I])
    np.testing.assert_array_equal(x[1, i, :, i].numpy(), X[1, I, :, I])
    np.testing.assert_array_equal(x[mge.tensor(1)].numpy(), X[1])
    np.testing.assert_array_equal(x[mge.tensor(X) > 7].numpy(), X[X > 7])


def test_parts_are_copies_and_assignment_gives_a_new_value() -> None:
    x = mge.tensor([1.0, 2.0, 3.0])
    part, other = x[:2], x
    x[0] = 9
    assert part.tolist() == [1, 2] and other.tolist() == [9, 2, 3]


def test_assignment_converts_to_the_dtype() -> None:
    x = mge.tensor([1, 2, 3])
    x[1] = 7.9
    assert x.tolist() == [1, 7, 3] and x.dtype is np.int32


def test_other_dtypes() -> None:
    for dtype in ("bool", "int8", "uint8", "float16", "bfloat16"):
        x = mge.tensor(X[0, 0]).astype(dtype)
        np.testing.assert_array_equal(x[::2, I].numpy(), x.numpy()[::2, I])
        x[1] = x[0]
        np.testing.assert_array_equal(x.numpy()[1], x.numpy()[0])


def test_gradient_through_indexing() -> None:
    x = mge.tensor(X[0, 0])
    gm = mge.autodiff.GradManager().attach([x])
    with gm:
        gm.backward((x[1:, mge.tensor(I)] * 2).sum() + x[0, ::-2].sum())
    expected = np.zeros_like(X[0, 0])
    np.add.at(expected, (slice(1, None), I), 2)
    expected[0, ::-2] += 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (2, mge.AxisError, "getitem: index 2 is out of range for axis 0 of size 2"),
        ((0, -4), mge.AxisError, "getitem: index -4 is out of range for axis 1 of size 3"),
        ((0, 0, 0, 0, 0), mge.AxisError, "getitem: 5 indices for a tensor of rank 4"),
        ((Ellipsis, Ellipsis), mge.ArgumentError, "getitem: the index has two ellipses (...)"),
        ("a", mge.ArgumentError, "getitem: 'a' of type str cannot be an index"),
        (slice(None, None, 0), mge.ArgumentError, "getitem: slice(None, None, 0) is not a slice"),
        (1.5, mge.ArgumentError, "getitem: 1.5 of type float cannot be an index"),
        (np.array([0.5]), mge.DTypeError, "getitem: a float64 array cannot be an index"),
        (np.array([3]), mge.AxisError, "getitem: index 3 is out of range for axis 0 of size 2"),
        (
            mge.tensor([5]),
            mge.AxisError,
            "getitem: the index of axis 0 holds 5 but must be below 2",
        ),
        (
            np.ones(3, bool),
            mge.ShapeError,
            "getitem: a mask of shape (3,) does not fit axes of sizes (2,)",
        ),
        (
            (np.zeros(2, int), np.zeros(3, int)),
            mge.ShapeError,
            "index arrays of shapes (2,), (3,) do not broadcast",
        ),
    ],
)
def test_errors(index: object, error: type[mge.MgecError], text: str) -> None:
    with pytest.raises(error) as caught:
        mge.tensor(X)[index]
    assert caught.value.headline.startswith(text)
    assert caught.value.fix


def test_an_assigned_value_must_fit() -> None:
    x = mge.tensor(X)
    with pytest.raises(mge.ShapeError) as caught:
        x[0] = mge.tensor([1.0, 2.0])
    assert caught.value.headline == (
        "setitem: value of shape (2,) does not broadcast to the part's (3, 4, 5)"
    )


def test_iteration_and_membership_of_rows() -> None:
    rows = [row.tolist() for row in mge.tensor([[1, 2], [3, 4]])]
    assert rows == [[1, 2], [3, 4]]
