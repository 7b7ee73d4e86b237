"""Input sets: what is drawn, what is read, and what is refused in one sentence."""

from __future__ import annotations

import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from loadtrt.errors import EngineError, UsageError
from loadtrt.load.inputs import make_inputs
from loadtrt.load.tensors import DTYPES, TensorSpec, bits_of, bytes_of, numpy_dtype

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.load.tensors import Arrays


def _spec(name: str, dtype: str, *shape: int, is_input: bool = True, shape_values: bool = False) -> TensorSpec:
    return TensorSpec(
        name, is_input, dtype, shape, bytes_of(dtype, shape) if min(shape, default=0) >= 0 else 0, shape_values
    )


X, IDS = _spec("x", "fp32", 2, 3), _spec("ids:0", "int64", 2)
BOTH = (X, IDS, _spec("y", "fp32", 2, is_input=False), _spec("size", "int32", 2, shape_values=True))


def _make(
    *sources: str, tensors: tuple[TensorSpec, ...] = BOTH, sets: int = 2, seed: int = 1, **ranges: Any
) -> list[Arrays]:
    return make_inputs(tensors, sources, sets, ranges, seed)


def _refused(sentence: str, *sources: str, tensors: tuple[TensorSpec, ...] = BOTH, **ranges: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)) as caught:
        _make(*sources, tensors=tensors, **ranges)
    assert "\n" not in str(caught.value)


@pytest.fixture
def x() -> Any:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def ids() -> Any:
    return np.array([7, 8])


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_inputs_are_refused_by_what_they_take(dtype: str, sets: int) -> None:
    """For every type the estimate is at least the peak of memory, and at most twice as much."""
    spec = _spec("t", dtype, 1 << 18)
    make_inputs([spec], ["random"], sets, {}, 1)  # what is imported first is no input
    tracemalloc.start()
    try:
        make_inputs([spec], ["random"], sets, {}, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with pytest.raises(EngineError, match="the inputs need"):
        make_inputs([spec], ["random"], sets, {}, 1, peak - 1)
    assert len(make_inputs([spec], ["random"], sets, {}, 1, 2 * peak)) == sets


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_has_the_engine_s_type_shape_and_bytes(dtype: str) -> None:
    """For every type: an array of the tensor's shape (sub-byte: packed bytes), exactly nbytes long, finite."""
    spec = _spec("t", dtype, 3, 5, 7)
    (arrays,) = _make("random", tensors=(spec,), sets=1)
    array = arrays["t"]
    assert array.dtype == numpy_dtype(dtype)
    assert array.nbytes == spec.nbytes
    assert array.shape == ((3, 5, 7) if bits_of(dtype) >= 8 else (spec.nbytes,))
    assert np.isfinite(array.astype(np.float64)).all()
    assert len(np.unique(array.astype(np.float64))) > 1


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("fp32", -1, 1),
        ("fp16", -1, 1),
        ("bf16", -1, 1),
        ("fp8", -1, 1),
        ("e8m0", 0.5, 2),
        ("int8", -128, 127),
        ("uint8", 0, 255),
        ("int64", 0, 9),
        ("uint16", 0, 9),
        ("bool", 0, 1),
    ],
)
def test_random_fills_its_default_range(dtype: str, low: float, high: float) -> None:
    """10 000 draws stay in the documented range and come within 5 % of both its ends."""
    (arrays,) = _make("random", tensors=(_spec("t", dtype, 10_000),), sets=1)
    values = arrays["t"].astype(np.float64)
    assert low <= values.min() <= low + 0.05 * (high - low)
    assert high >= values.max() >= high - 0.05 * (high - low)


@pytest.mark.parametrize(
    ("dtype", "limits"), [("fp32", (3.0, 5.0)), ("int32", (-3, 3)), ("bool", (1, 1)), ("fp64", (0, 1e300))]
)
def test_a_range_includes_both_ends(dtype: str, limits: tuple[float, float]) -> None:
    """--input-range t:low..high bounds the draws; integers take both ends."""
    (arrays,) = _make("random", tensors=(_spec("t", dtype, 1000),), sets=1, t=limits)
    values = arrays["t"].astype(np.float64)
    assert values.min() >= limits[0]
    assert values.max() <= limits[1]
    if numpy_dtype(dtype).kind in "ib":
        assert {values.min(), values.max()} == set(map(float, limits))


def test_the_widest_range_does_not_overflow() -> None:
    """high − low above the largest float still draws finite values."""
    most = float(np.finfo(np.float32).max)
    (arrays,) = _make("random", tensors=(_spec("t", "fp32", 1000),), sets=1, t=(-most, most))
    assert np.isfinite(arrays["t"]).all()


def test_random_sets_differ_and_the_seed_decides() -> None:
    """`sets` different sets; same seed, same sets; another seed, others."""
    first, second = _make("random")
    again, _ = _make("random")
    other, _ = _make("random", seed=2)
    assert set(first) == {"x", "ids:0"}
    assert (first["x"] == again["x"]).all()
    assert (first["x"] != second["x"]).any()
    assert (first["x"] != other["x"]).any()


def test_zeros_is_one_set() -> None:
    """All zeros, once: more of the same would only take memory."""
    (arrays,) = _make("zeros", sets=4)
    assert not arrays["x"].any()
    assert arrays["ids:0"].dtype == np.int64


def test_an_npz_is_a_set_or_several(tmp_path: Path, x: Any, ids: Any) -> None:
    """One more axis in front counts sets; an array without it serves them all; several files add up."""
    np.savez(tmp_path / "a.npz", **{"x": np.stack([x, x + 1, x + 2]), "ids:0": ids})
    np.savez(tmp_path / "b.npz", **{"x": x + 3, "ids:0": ids + 1})
    sets = _make(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert [float(arrays["x"][0, 0]) for arrays in sets] == [0, 1, 2, 3]
    assert [int(arrays["ids:0"][0]) for arrays in sets] == [7, 7, 7, 8]


def test_raw_files_are_sets_of_their_tensor(tmp_path: Path, x: Any, ids: Any) -> None:
    """name:file holds exactly nbytes; several for one name are several sets; a name may hold colons itself."""
    for k in range(2):
        (x + k).tofile(tmp_path / f"x{k}")
    ids.tofile(tmp_path / "ids")
    sets = _make(f"x:{tmp_path}/x0", f"ids:0:{tmp_path}/ids", f"x:{tmp_path}/x1")
    assert [arrays["x"].tolist() for arrays in sets] == [x.tolist(), (x + 1).tolist()]
    assert sets[1]["ids:0"].tolist() == [7, 8]


def test_npz_and_raw_together_cover_the_inputs(tmp_path: Path, x: Any, ids: Any) -> None:
    """What one file lacks another may have."""
    np.savez(tmp_path / "a.npz", x=x)
    ids.tofile(tmp_path / "ids")
    (arrays,) = _make(str(tmp_path / "a.npz"), f"ids:0:{tmp_path}/ids")
    assert arrays["x"].tolist() == x.tolist()


def test_what_numpy_cannot_name_is_read_by_its_width(tmp_path: Path) -> None:
    """bf16 survives an .npz, which numpy reads back as two raw bytes; fp4 is given as packed bytes."""
    values = np.array([1.5, -2.0]).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "a.npz", h=values, q=np.array([0x21, 0x03], np.uint8))
    (arrays,) = _make(str(tmp_path / "a.npz"), tensors=(_spec("h", "bf16", 2), _spec("q", "fp4", 3)))
    assert arrays["h"].tolist() == [1.5, -2.0]
    assert arrays["q"].tolist() == [0x21, 0x03]


def test_an_npz_that_does_not_fit_is_refused(tmp_path: Path, x: Any, ids: Any) -> None:
    """Wrong name, type, shape, count, missing input: the file, the tensor, what it has and what is needed."""
    file = str(tmp_path / "a.npz")

    def save(**arrays: Any) -> None:
        np.savez(file, **arrays)

    save(X=x)
    _refused("a.npz: the engine has no input 'X': the inputs are x, ids:0", file)
    save(ids_0=ids)
    _refused("a.npz: the engine has no input 'ids_0': did you mean 'ids:0'?", file)
    save(x=x.astype(np.float64))
    _refused("a.npz holds x as float64; input x fp32[2,3] needs float32: convert it before saving", file)
    save(x=x.T)
    _refused("a.npz holds x with shape [3, 2]; input x fp32[2,3] needs [2, 3]", file)
    save(x=x[None][:0])
    _refused("a.npz holds x with shape [0, 2, 3]", file)
    save(x=x)
    _refused("no file holds input ids:0 int64[2]: give files for every input", file)
    save(**{"x": np.stack([x, x, x]), "ids:0": np.stack([ids, ids])})
    _refused("holds 2 sets of ids:0 but 3 of another input", file)
    save(x=np.array([None]))
    _refused("a.npz holds x as object; input x fp32[2,3] needs float32", file)


def test_files_that_are_no_npz_are_refused(tmp_path: Path, x: Any, ids: Any) -> None:
    """Missing, empty, text, truncated, damaged, .npy in disguise, a directory: the file and why."""
    np.savez_compressed(tmp_path / "whole.npz", **{"x": x, "ids:0": ids})
    whole = bytearray((tmp_path / "whole.npz").read_bytes())
    damaged = whole.copy()
    damaged[60:90] = bytes(30)
    for name, content, why in (
        ("empty", b"", "not an .npz: write one"),
        ("text", b"hello", "not an .npz: write one"),
        ("short", bytes(whole[:200]), "not an .npz: it is a zip archive that is cut short"),
    ):
        (tmp_path / f"{name}.npz").write_bytes(content)
        _refused(f"{name}.npz is {why}", str(tmp_path / f"{name}.npz"))
    with (tmp_path / "npy.npz").open("wb") as out:
        np.save(out, x)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "damaged.npz").write_bytes(damaged)
    _refused("npy.npz is not an .npz: it is a numpy array", str(tmp_path / "npy.npz"))
    _refused("damaged.npz is damaged or not an .npz", str(tmp_path / "damaged.npz"))
    _refused("folder.npz: Is a directory", str(tmp_path / "folder.npz"))
    _refused("nowhere.npz: No such file or directory", str(tmp_path / "nowhere.npz"))


def test_raw_files_that_do_not_fit_are_refused(tmp_path: Path, x: Any, ids: Any) -> None:
    """Wrong size, wrong name, missing file, unequal counts."""
    file = tmp_path / "raw"
    x.astype(np.float64).tofile(file)
    _refused("raw has 48 bytes; input x fp32[2,3] takes 24", f"x:{file}")
    _refused(f"--inputs xs:{file}: the engine has no input 'xs': did you mean 'x'?", f"xs:{file}")
    _refused(f"cannot read input x {tmp_path}/nowhere: No such file or directory", f"x:{tmp_path}/nowhere")
    x.tofile(file)
    ids.tofile(tmp_path / "ids")
    three, two = [f"x:{file}"] * 3, [f"ids:0:{tmp_path}/ids"] * 2
    _refused("2 arrays for ids:0 but 3 for x: give as many, or 1", *three, *two)


def test_sources_and_ranges_that_do_not_fit_are_refused() -> None:
    """Random and zeros stand alone; ranges are for random inputs, tensors that exist, values their types hold."""
    _refused("use 'random' alone", "random", "a.npz")
    _refused("write random, zeros, FILE.npz, NAME:FILE (.npy, .npz, .pb or raw bytes), or a folder", "ramdom")
    _refused("--input-range: the engine has no input 'z'", "random", z=(0, 1))
    _refused("--input-range x has no effect here", "zeros", x=(0, 1))
    _refused("x:1..0: write the lower limit first", "random", x=(1, 0))
    _refused("x:0..inf: write the lower limit first, both finite", "random", x=(0, float("inf")))
    small = (_spec("h", "fp16", 2), _spec("b", "int8", 2), _spec("q", "int4", 2))
    _refused("h:0..70000: fp16 holds -65504 to 65504", "random", tensors=small, h=(0, 70000))
    _refused("b:-200..0: int8 holds -128 to 127", "random", tensors=small, b=(-200, 0))
    _refused("b:0.2..0.8: the range contains no whole number", "random", tensors=small, b=(0.2, 0.8))
    _refused("q:0..1: int4 takes no range", "random", tensors=small, q=(0, 1))
    _refused("the shape of input x fp32[?,3] is open", "random", tensors=(_spec("x", "fp32", -1, 3),))
