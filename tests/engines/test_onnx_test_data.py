"""The models that onnx itself is tested with: each reads its own test data and gives its outputs."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.errors import EngineError, UsageError
from loadtrt.lanes.input_sets import inputs_for
from onnx_files import finish, load
from rigs import one_loop
from versions import needs

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
MODELS = [file for file in sorted(DATA.rglob("model.onnx")) if (file.parent / "test_data_set_0").is_dir()]


def _expected(file: Path) -> list[Any]:
    """The outputs of a model's first set of test data."""
    outputs = []
    for place in range(len(onnx.load(file).graph.output)):
        proto = onnx.TensorProto()
        proto.ParseFromString((file.parent / "test_data_set_0" / f"output_{place}.pb").read_bytes())
        outputs.append(onnx.numpy_helper.to_array(proto))
    return outputs


def _opened(file: Path) -> Any:
    """The model's engine; None where it is not served here: training's operators and locales may be missing, and one
    leaves a size open."""
    try:
        return load(str(file))
    except (EngineError, UsageError) as error:
        if not re.search(r"Gradient\(-1\)|locale|add --batch N", str(error)):
            raise
        return None


@one_loop
@needs("onnx", "1.23", "its models of training are refused in other words")
@needs("onnxruntime", "1.28", "its strings need locales of the system")
@pytest.mark.anyio
@pytest.mark.parametrize("kind", sorted({file.parents[1].name for file in MODELS}) or ["none"])
async def test_onnx_s_own_models(kind: str) -> None:
    """Old opsets, as most are, are lifted; inputs are those of test_data_set_0, outputs what is written there."""
    files = [file for file in MODELS if file.parents[1].name == kind]
    if not files:
        pytest.skip("this onnx brings no test data")
    served = 0
    for file in files:
        if (opened := _opened(file)) is None:
            continue
        served += 1
        config = RunConfig.of(engine=str(file), inputs=(str(file.parent),))
        with closing(opened) as engine:
            made = inputs_for(engine, config.model)
            engine.allocate(made.sets)
            engine.submit(0, 0)
            assert [done.error for done in await finish(engine, 1)] == [None], file
            outputs = engine.outputs(0, 0)
        for output, expected in zip(outputs.values(), _expected(file), strict=True):
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4, err_msg=str(file))
            else:
                np.testing.assert_array_equal(output, expected, str(file))
    assert served >= len(files) - 7
