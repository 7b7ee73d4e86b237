"""What remote write sends, read by protobuf's own reader of the messages that Prometheus declares."""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from exported import recorded, some_requests, view
from loadtrt.live.metrics import families
from loadtrt.live.protobuf import snappy, to_write_request

# Of prometheus/prompb, version 1: the fields that are written.
_MESSAGES = {
    "Label": {"name": (1, "STRING"), "value": (2, "STRING")},
    "Sample": {"value": (1, "DOUBLE"), "timestamp": (2, "INT64")},
    "TimeSeries": {"labels": (1, "Label"), "samples": (2, "Sample")},
    "WriteRequest": {"timeseries": (1, "TimeSeries")},
}


def _write_request(data: bytes) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="test", syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            inner = kind in _MESSAGES
            message.field.add(
                name=field,
                number=number,
                type=types.TYPE_MESSAGE if inner else getattr(types, f"TYPE_{kind}"),
                type_name=f".test.{kind}" if inner else None,
                label=types.LABEL_REPEATED if inner else types.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    read = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.WriteRequest"))
    return read.FromString(data)


def test_each_sample_of_the_page_is_a_series() -> None:
    """With the name and the labels of all series among its own, sorted and each once, and one value at that instant."""
    page = list(families(view(recorded(some_requests())[0])))
    request = _write_request(to_write_request(page, {"job": "loadtrt", "team": "search"}, 1_800_000_000_123))
    found = {}
    for series in request.timeseries:
        names = [label.name for label in series.labels]
        assert names == sorted(set(names))
        (sample,) = series.samples
        assert sample.timestamp == 1_800_000_000_123
        found[tuple((label.name, label.value) for label in series.labels)] = sample.value
    extra = {"job": "loadtrt", "team": "search"}
    expected = {
        tuple(sorted({**sample.labels, **extra, "__name__": sample.name}.items())): sample.value
        for metric in page
        for sample in metric.samples
    }
    assert len(found) == len(request.timeseries) == len(expected) > 400
    assert found == expected


@given(st.binary(max_size=70_000))
def test_snappy_is_the_length_and_a_literal(data: bytes) -> None:
    """By the format's description: the length as a varint, then a tag 63 with the length less one in four bytes."""
    packed = snappy(data)
    length = place = 0
    while True:
        byte = packed[place]
        length |= (byte & 0x7F) << (7 * place)
        place += 1
        if byte < 0x80:
            break
    assert length == len(data)
    if data:
        assert packed[place] == 63 << 2
        assert struct.unpack_from("<I", packed, place + 1) == (len(data) - 1,)
        assert packed[place + 5 :] == data
    else:
        assert packed[place:] == b""
