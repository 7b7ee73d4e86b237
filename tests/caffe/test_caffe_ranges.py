"""Ranges of an image's sizes for Caffe networks: one ONNX that is right at each of them, or a true sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from caffe_files import arrays, error, run_opencv, write
from caffe_nets import conv, dense, layer, net, pool
from command_line import loadtrt
from loadtrt.caffe import convert
from loadtrt.caffe.ranges import open_ranges
from loadtrt.engines.build_model import open_batch
from loadtrt.environment import import_onnxruntime
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Shape = tuple[int, ...]

TOLERANCE = 1e-5
SMALL, MIDDLE, LARGE = (1, 3, 32, 48), (2, 3, 64, 64), (4, 3, 96, 128)
# Half the size, back to it by a deconvolution that is one pixel larger on each side, cut to the image, added, pooled.
FULLY = (
    conv("c1", "data", 4, 3, "pad: 1")
    + pool("p1", "c1", "pool: MAX kernel_size: 2 stride: 2")
    + conv("up", "p1", 4, 4, "stride: 2 bias_term: false", "Deconvolution", inplace=False)
    + layer("Crop", "cut", "up c1", params="crop_param { axis: 2 offset: 1 }")
    + layer("Eltwise", "sum", "cut c1")
)
BLOBS = {"c1": arrays((4, 3, 3, 3), (4,)), "up": arrays((4, 4, 4, 4))}


def _opened(deploy: Path, weights: Path | None, *profiles: Sequence[Shape], outputs: Sequence[str] = ()) -> Any:
    model = convert(deploy, weights, outputs, 0, {"data": profiles[0][1]})
    ranges = [{"data": (shapes[0], shapes[1], shapes[2])} for shapes in profiles]
    notes = open_ranges(model, deploy, outputs, ranges)
    open_batch(model)
    return model, notes


def test_one_model_is_right_at_each_size_of_its_range(tmp_path: Path) -> None:
    """As OpenCV computes the same file, at the ends of two ranges and between; inputs and outputs are open."""
    deploy, weights = write(tmp_path, net(FULLY, *SMALL), BLOBS)
    model, notes = _opened(deploy, weights, (SMALL, MIDDLE, LARGE), ((1, 3, 16, 16),) * 3)
    for value in (*model.graph.input, *model.graph.output):
        assert [dim.HasField("dim_param") for dim in value.type.tensor_type.shape.dim] == [True, False, True, True]
    assert "size 2 of input data and 3 of input data: those that differ from 64 by a multiple of 2 are" in notes[0]
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in (SMALL, MIDDLE, LARGE, (1, 3, 16, 16), (3, 3, 34, 126)):
        feeds = {"data": np.random.default_rng(1).standard_normal(shape, dtype=np.float32)}
        assert error(session.run(None, feeds)[0], run_opencv(deploy, weights, feeds, ["sum"])[0]) < TOLERANCE


def test_without_layers_that_round_there_is_nothing_to_say(tmp_path: Path) -> None:
    """Convolutions alone; the height alone varies."""
    deploy, weights = write(tmp_path, net(conv("c1", "data", 4, 3), *SMALL), BLOBS)
    model, notes = _opened(deploy, weights, (SMALL, (1, 3, 40, 48), (1, 3, 99, 48)))
    assert notes == ()
    (output,) = model.graph.output
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [0, 4, 0, 46]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            dense("fc", "data", 2),
            "layer fc (InnerProduct) needs other weights or settings for inputs of 1x3x32x48 than of",
        ),
        (
            pool("p", "data", "pool: AVE kernel_size: 3 stride: 2"),
            "(Pooling) needs other weights or settings for inputs of 1x3x99x131 than of 1x3x64x64",
        ),
        (
            layer("Interp", "up", params="interp_param { zoom_factor: 2 }"),
            "layer up (Interp) needs other weights or settings",
        ),
        (
            layer("Interp", "up", params="interp_param { height: 64 width: 64 }") + layer("Concat", "j", "up data"),
            "layer j (Concat) cannot join 1x3x64x64 and 1x3x32x48 along axis 1",
        ),
    ],
)
def test_a_layer_that_follows_from_the_sizes_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """With both shapes, and what to do."""
    deploy, _ = write(tmp_path, net(text, 1, 3, 64, 64), {})
    with pytest.raises(UsageError) as caught:
        _opened(deploy, None, (SMALL, (1, 3, 64, 64), (1, 3, 99, 131)))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{deploy}:")


def test_what_an_output_does_not_need_counts_for_nothing(tmp_path: Path) -> None:
    """--output before the full connection."""
    text = conv("c1", "data", 4, 3) + dense("fc", "c1", 2)
    deploy, _ = write(tmp_path, net(text, 1, 3, 64, 64), {})
    assert _opened(deploy, None, (SMALL, (1, 3, 64, 64), LARGE), outputs=["c1"])[1] == ()
    with pytest.raises(UsageError, match="layer fc"):
        _opened(deploy, None, (SMALL, (1, 3, 64, 64), LARGE))


def test_the_batch_alone_stays_possible_for_every_network(tmp_path: Path) -> None:
    """With a full connection, too."""
    deploy, _ = write(tmp_path, net(dense("fc", "data", 2), 1, 3, 8, 8), {})
    model, notes = _opened(deploy, None, ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8)))
    assert notes == ()
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [0, 3, 8, 8]


def test_the_command_takes_a_range_of_sizes(tmp_path: Path) -> None:
    """A real builder leaves them open, without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    deploy, _ = write(tmp_path, net(FULLY, *SMALL), {})
    shapes = [
        f"--{word}-shapes=data:{'x'.join(map(str, shape))}"
        for word, shape in (("min", SMALL), ("opt", MIDDLE), ("max", LARGE))
    ]
    plan = ("-o", str(tmp_path / "a.plan"), "--flavour=rtx", "--target=sm86")
    done = loadtrt("build", f"--deploy={deploy}", *plan, *shapes)
    assert done.returncode == 0
    assert "input data fp32[?,3,?,?]" in done.stdout
    assert "output sum fp32[?,4,?,?]" in done.stdout
    assert "those that differ from 64 by a multiple of 2 are computed as in Caffe" in done.stderr


@pytest.mark.parametrize("name", ["nope", "boxe"])
def test_outputs_that_can_be_built_are_named(tmp_path: Path, name: str) -> None:
    """And none that cannot, even where its name is near."""
    text = (
        conv("c1", "data", 4, 3)
        + pool("p1", "c1", "pool: MAX kernel_size: 2 stride: 2")
        + layer("Python", "boxes", "p1", params='python_param { module: "a" layer: "B" }')
        + layer("ReLU", "rest", "boxes")
    )
    deploy, _ = write(tmp_path, net(text, 1, 3, 64, 64), {})
    with pytest.raises(UsageError, match=f"has no blob {name} to put out: name one that can be built, such as p1$"):
        convert(deploy, None, [name])
