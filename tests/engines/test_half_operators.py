"""Every operator that ONNX has test cases for, converted to FP16: it loads, and answers as in FP32."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from half_models import U, answer
from loadtrt.engines.half_precision import convert_to_fp16
from versions import needs

_EVERY = 20  # of the cases; the others with -m slow


@cache
def _cases() -> list[tuple[str, Any, list[Any]]]:
    """Name, model and inputs of each case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            (case.name, case.model, list(case.data_sets[0][0]))
            for case in collect_testcases(None)
            if case.model is not None and case.data_sets
        ]


def _fault(made: Any, inputs: list[Any]) -> str | None:
    """What is wrong with the conversion; None where nothing is, "no oracle" where ONNX Runtime does not run it."""
    half = onnx.ModelProto()
    half.CopyFrom(made)
    half, _ = convert_to_fp16(half)
    names = [item.name for item in made.graph.input]
    feeds = dict(zip(names, inputs, strict=False))
    try:
        wanted = answer(made, feeds)
    except Exception:  # onnxruntime's exceptions share no base of their own
        return "no oracle"
    for full, found in zip(wanted, answer(half, feeds), strict=True):
        if not isinstance(full, np.ndarray) or full.dtype.kind not in "fiub":
            continue
        if (full.dtype, full.shape) != (found.dtype, found.shape):
            return f"{full.dtype}{full.shape} became {found.dtype}{found.shape}"
        a, b = full.astype(np.float64), found.astype(np.float64)
        finite = np.isfinite(a)
        a, b = a[finite], b[finite]
        bound = 16 * U * max(np.abs(a).max(initial=0), 2.0**-14) if full.dtype.kind == "f" else 0
        if not np.abs(a - b).max(initial=0) <= bound:
            return f"{np.abs(a - b).max()} apart"
    return None


@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in range(1, _EVERY))])
def test_the_cases_of_onnx(start: int) -> None:
    """Those that ONNX Runtime runs in FP32, it runs in FP16, too, and nothing but rounding differs."""
    cases = _cases()[start::_EVERY]
    faults = {name: fault for name, made, inputs in cases if (fault := _fault(made, inputs)) is not None}
    compared = len(cases) - list(faults.values()).count("no oracle")
    assert {name: fault for name, fault in faults.items() if fault != "no oracle"} == {}
    assert compared > len(cases) / 2


@needs("onnx", "1.22", "it does not bring these cases")
@pytest.mark.parametrize("name", ["bitcast_float32_to_int32", "scatternd_add", "scatter_elements_with_reduction_mul"])
def test_operators_whose_fp16_is_another_operator(name: str) -> None:
    """A BitCast of half the bits, a Scatter that sums in FP16: they stay FP32, though ONNX has them in FP16."""
    found = [(made, inputs) for case, made, inputs in _cases() if case == f"test_{name}"]
    ((made, inputs),) = found
    assert _fault(made, inputs) is None


def test_trees_stay() -> None:
    """Operators of other domains than ONNX's own, whose model need not import that."""
    ((made, inputs),) = [
        (made, inputs) for case, made, inputs in _cases() if case == "test_ai_onnx_ml_tree_ensemble_set_membership"
    ]
    assert _fault(made, inputs) is None
