"""GPU tests: skipped where there is no GPU, and each where its plan or its TensorRT is missing.

. .gpu/setup.sh && python3 -m pytest tests/gpu        # PLANS names the folder of plans
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtrt.cuda.runtime import call, has_gpu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder, and skip it without a GPU."""
    here = Path(__file__).parent
    skip = pytest.mark.skip(reason="no CUDA GPU here")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not has_gpu():
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def device() -> None:
    """GPU 0 is the calling thread's device."""
    call("cudaSetDevice", 0)


def _plan(name: str) -> Path:
    path = Path(os.environ.get("PLANS", "nowhere")) / name
    if not path.exists():
        pytest.skip(f"{path} is missing: set PLANS to the folder of plans")
    return path


@pytest.fixture
def googlenet() -> Path:
    """data fp32[1..32, 3, 224, 224] → prob fp32[N, 1000], FP16 inside, version-compatible."""
    return _plan("googlenet_dyn_fp16_vc.plan")


@pytest.fixture
def tiny() -> Path:
    """x fp32[1, 256] → y fp32[1, 10], version-compatible."""
    return _plan("tiny_mlp_fp32_vc.plan")
