"""What Prometheus takes in protobuf, which prometheus_client has no writer for: metrics with native histograms for a
scrape, and what remote write sends. Both are few kinds of message; the libraries for remote write that there are write
histograms wrongly, or need gRPC's tools.
"""

from __future__ import annotations

import struct
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import Metric
    from prometheus_client.samples import NativeHistogram, Sample

_TYPES = {"counter": 0, "gauge": 1, "info": 1, "summary": 2, "histogram": 4}  # of MetricType in metrics.proto
_SMALL = [bytes([value]) for value in range(0x80)]
_LITERAL = 63 << 2  # a tag of snappy: bytes as they are, with their number, less one, in the four bytes that follow


def to_protobuf(metrics: Iterable[Metric]) -> bytes:
    """io.prometheus.client.MetricFamily (metrics.proto of prometheus/client_model), each preceded by its length."""
    return b"".join(_delimited(_family(metric)) for metric in metrics)


def to_write_request(metrics: Iterable[Metric], labels: Mapping[str, str], at_ms: int) -> bytes:
    """prometheus.WriteRequest (remote.proto of Prometheus, version 1): every sample as a series with one value.

    labels: of every series.
    at_ms: Unix time of the values.
    """
    series = []
    for metric in metrics:
        for sample in metric.samples:
            named = sorted({**sample.labels, **labels, "__name__": sample.name}.items())  # receivers want them sorted
            value = _double(1, sample.value) + _int(2, at_ms)
            series.append(_bytes(1, _labels(dict(named)) + _bytes(2, value)))
    return b"".join(series)


def snappy(data: bytes) -> bytes:
    """Snappy's block format, without compression: it is what remote write asks for, and a page takes 0.2 MB."""
    return _varint(len(data)) + (bytes([_LITERAL]) + struct.pack("<I", len(data) - 1) + data if data else b"")


def _family(metric: Metric) -> bytes:
    name = metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")  # as before OpenMetrics
    head = _bytes(1, name.encode()) + _bytes(2, metric.documentation.encode()) + _int(3, _TYPES[metric.type])
    if metric.type not in ("histogram", "summary"):
        field = 3 if metric.type == "counter" else 2
        points = [_labels(sample.labels) + _bytes(field, _double(1, sample.value)) for sample in metric.samples]
    else:
        own = "le" if metric.type == "histogram" else "quantile"
        write = _histogram if metric.type == "histogram" else _summary
        points = []
        for labels, samples in groupby(metric.samples, lambda it: {k: v for k, v in it.labels.items() if k != own}):
            points.append(_labels(labels) + write(metric.name, list(samples)))
    return head + b"".join(_bytes(4, point) for point in points)


def _histogram(name: str, samples: list[Sample]) -> bytes:
    body = b""
    for sample in samples:
        if sample.native_histogram is not None:
            body += _native(sample.native_histogram)
        elif sample.name == f"{name}_count":
            body += _int(1, int(sample.value))
        elif sample.name == f"{name}_sum":
            body += _double(2, sample.value)
        else:
            bound = inf if sample.labels["le"] == "+Inf" else float(sample.labels["le"])
            body += _bytes(3, _int(1, int(sample.value)) + _double(2, bound))
    return _bytes(7, body)


def _summary(_: str, samples: list[Sample]) -> bytes:
    quantiles = (_double(1, float(sample.labels["quantile"])) + _double(2, sample.value) for sample in samples)
    return _bytes(4, b"".join(_bytes(3, quantile) for quantile in quantiles))


def _native(native: NativeHistogram) -> bytes:
    spans = (_int(1, _zigzag(span.offset)) + _int(2, span.length) for span in native.pos_spans or ())
    return (
        _int(5, _zigzag(native.schema))
        + _double(6, native.zero_threshold)
        + _int(7, int(native.zero_count))
        + b"".join(_bytes(12, span) for span in spans)
        + _bytes(13, b"".join(_varint(_zigzag(delta)) for delta in native.pos_deltas or ()))
    )


def _labels(labels: Mapping[str, str]) -> bytes:
    return b"".join(_bytes(1, _bytes(1, label.encode()) + _bytes(2, value.encode())) for label, value in labels.items())


def _varint(value: int) -> bytes:
    if value <= 0x7F:
        return _SMALL[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    """The encoding of protobuf's sint: 0, −1, 1, −2 become 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(value)


def _delimited(value: bytes) -> bytes:
    return _varint(len(value)) + value
