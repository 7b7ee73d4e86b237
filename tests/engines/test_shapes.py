"""Shapes from what the engine leaves open and what the user says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.engines.shapes import InputShape, check_values, require_known, resolve_shapes
from loadtrt.errors import UsageError


def _input(name: str, *shape: int, **of: object) -> InputShape:
    return InputShape(name, "fp32", shape, **of)  # type: ignore[arg-type]


DATA = _input("data", -1, 3, -1, least=(1, 3, 32), best=(16, 3, 64), most=(32, 3, 128))
NAMED = [_input(name, -1, -1, symbols=("N", "L")) for name in "ab"]
BATCHED = _input("data", -1, 3, least=(1, 3), best=(16, 3), most=(32, 3))


def test_batch_sets_the_open_first_size_of_every_input() -> None:
    """Law: --batch N makes [-1, …] into [N, …] for every input, and leaves fixed first sizes alone."""
    found = resolve_shapes([BATCHED, _input("mask", -1), _input("table", 5, 7)], batch=8, shapes={})
    assert found.shapes == {"data": (8, 3), "mask": (8,), "table": (5, 7)}


def test_a_first_size_that_is_the_batch() -> None:
    """Law: -1 in --shapes, as parts have it, is the batch where the first size is open, and the engine's elsewhere."""
    shapes = {"data": (-1, 3, 32), "table": (-1, 7)}
    found = resolve_shapes([DATA, _input("table", 5, -1)], batch=8, shapes=shapes)
    assert found.shapes == {"data": (8, 3, 32), "table": (5, 7)}


def test_shapes_decide_everything() -> None:
    """Law: an input named in --shapes has exactly that shape."""
    found = resolve_shapes([DATA, _input("table", 5, 7)], batch=None, shapes={"data": (4, 3, 32)})
    assert found.shapes["data"] == (4, 3, 32)


def test_a_symbol_is_one_size() -> None:
    """Law: a size decided in one input is decided wherever the model calls it so; others stand alone."""
    other = _input("c", 7, -1, -1, symbols=("", "L", "N"))
    found = resolve_shapes([other, *NAMED], batch=None, shapes={"b": (4, 8)})
    assert found.shapes == {"c": (7, 8, 4), "a": (4, 8), "b": (4, 8)}
    assert found.symbols == {"N": 4, "L": 8}


@pytest.mark.parametrize(
    ("inputs", "batch", "shapes", "words"),
    [
        ([BATCHED], None, {}, ["data fp32[?,3]", "--batch N", "1..32 (optimised for 16)"]),
        ([DATA], 8, {}, ["leaves dimensions open", "--shapes data:16x3x64", "dimension 2 takes 32..128"]),
        ([DATA], None, {}, ["--shapes data:16x3x64", "dimension 0 takes 1..32"]),
        ([_input("x", -1)], None, {}, ["x fp32[?]", "--batch N"]),
        (
            [BATCHED],
            33,
            {},
            ["size 33 of dimension 0", "optimization profile 2", "1..32 (optimised for 16): ask for one within it"],
        ),
        (
            [DATA],
            None,
            {"data": (4, 3, 129)},
            ["size 129 of dimension 2", "32..128 (optimised for 64)", "ask for one within it"],
        ),
        ([DATA], None, {"data": (4, 3)}, ["shape 4x3 does not fit data", "has 3 dimensions, not 2"]),
        ([DATA], None, {"data": (4, 1, 64)}, ["dimension 1", "fixed at 3", "cannot be 1"]),
        ([BATCHED], 4, {"dat": (4, 3)}, ["names 'dat'", "did you mean 'data'?"]),
        ([BATCHED], 4, {"zzz": (4, 3)}, ["names 'zzz'", "inputs are data"]),
        (
            [BATCHED],
            4,
            {"data": (8, 3)},
            [
                "batch 4 contradicts",
                "data [8,3]",
                "make them agree, or in a run write N for the batch: --shapes data:Nx3",
            ],
        ),
        ([_input("x", 16, 3)], 4, {}, ["batch 4 contradicts", "x [16,3], fixed when the engine was made"]),
        ([BATCHED, _input("x", 4, 3)], 4, {"data": (8, 3)}, ["batch 4 contradicts", "data [8,3], x [4,3]"]),
        ([_input("x")], 4, {}, ["batch 4 contradicts", "(none, fixed"]),
        (NAMED, 2, {}, ["a fp32[N,L] and b fp32[N,L] leave dimensions open", "--shapes a:2xL,b:2xL, with numbers"]),
        (NAMED, None, {"a": (2, 3), "b": (2, 4)}, ["size 'L' would be 3 in a but 4 in b"]),
        (NAMED, 2, {"b": (4, 3)}, ["size 'N' would be 2 in a but 4 in b"]),
        ([_input("x", -1, batched=False)], 4, {}, ["leaves its first dimension open", "--shapes x:N"]),
        ([_input("x", -1, symbols=("samples",))], None, {}, ["add --shapes, such as --shapes x:samples"]),
        (
            [_input("x", -1, 4, symbols=("batch", "")), _input("y", 3, -1, symbols=("", "t")), _input("z", -1)],
            None,
            {},
            ["x fp32[batch,4], y fp32[3,t] and z fp32[?] leave dimensions open", "x:batchx4,y:3xt,z:N, with numbers"],
        ),
    ],
)
def test_what_cannot_be_decided_is_an_error(
    inputs: list[InputShape], batch: int | None, shapes: dict[str, tuple[int, ...]], words: list[str]
) -> None:
    """Law: nothing is assumed; the sentence names the input, its range and what is missing."""
    with pytest.raises(UsageError) as error:
        resolve_shapes(inputs, batch=batch, shapes=shapes, profile=2)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("batch", "shapes"), [(33, {}), (None, {"data": (33, 3)}), (None, {"data": (-1, 3, 5)}), (4, {"data": (-1, 4)})]
)
def test_a_size_that_does_not_fit_names_no_option(batch: int | None, shapes: dict[str, tuple[int, ...]]) -> None:
    """Law: sizes of a mix, a batcher and a file get here as --batch and --shapes do, and who asked for none of these
    options is not told to change one."""
    with pytest.raises(UsageError) as error:
        resolve_shapes([BATCHED], batch=batch, shapes=shapes, profile=0)
    assert "--" not in str(error.value)


@given(
    shape=st.lists(st.integers(-1, 4).filter(lambda size: size != 0), max_size=4),
    batch=st.none() | st.integers(1, 8),
)
def test_resolved_shapes_are_whole(shape: list[int], batch: int | None) -> None:
    """Law: either an error, or every size is decided and every fixed size is as it was."""
    try:
        found = resolve_shapes([_input("x", *shape)], batch=batch, shapes={})
    except UsageError:
        return
    assert all(size >= 0 for size in found.shapes["x"])
    assert all(fixed in (-1, size) for fixed, size in zip(shape, found.shapes["x"], strict=True))


def test_values_within_the_profile_pass() -> None:
    """Law: values in least..most are taken as they are, also where only the first range is known (TensorRT 8.6)."""
    assert check_values("size", [8, 9], 2, [1, 1], [4, 4], [16, 16]) == (8, 9)
    assert check_values("size", [8, 900], 2, [1], [4], [16]) == (8, 900)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, ["must be given", "--shape-values size:4,4", "1..16,1..16 (optimised for 4,4)"]),
        ([8], ["size has 2 values, not 1"]),
        ([8, 17], ["--shape-values size:8,17", "outside"]),
    ],
)
def test_values_that_cannot_be(values: list[int] | None, words: list[str]) -> None:
    """Law: missing, miscounted and outside values are errors that print the range."""
    with pytest.raises(UsageError) as error:
        check_values("size", values, 2, [1, 1], [4, 4], [16, 16])
    for word in words:
        assert word in str(error.value)


def test_values_missing_without_a_range() -> None:
    """Law: where no range is known the sentence shows how many values there are."""
    with pytest.raises(UsageError, match=r"--shape-values size:N,N$"):
        check_values("size", None, 2, [], [], [])


def test_unknown_names_where_there_are_none() -> None:
    """Law: an option that names an input of an engine without any says that it has none."""
    with pytest.raises(UsageError, match="its inputs are none"):
        require_known("--shape-values", {"x": 1}, [])
