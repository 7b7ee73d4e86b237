"""Families of metrics as bytes: Prometheus' text, OpenMetrics, and Prometheus' protobuf, which alone carries native
histograms.

prometheus_client's own writers take 8 ms for a run's 870 lines, and 11 ms in OpenMetrics; these take 1 ms.
"""

from __future__ import annotations

import struct
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING

from loadtrt.prometheus.families import declaration, series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric
    from prometheus_client.samples import NativeHistogram, Sample

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

_TYPES = {"counter": 0, "gauge": 1, "info": 1, "summary": 2, "histogram": 4}  # of MetricType in metrics.proto

_SMALL = [bytes([value]) for value in range(0x80)]


def to_text(metrics: Iterable[Metric], openmetrics: bool) -> bytes:
    """Prometheus' text format 0.0.4, or OpenMetrics 1.0. Native histograms, which neither knows, are left out."""
    lines = []
    for metric in metrics:
        name, kind = (metric.name, metric.type) if openmetrics else _plain_name(metric)
        lines.append(declaration(name, kind, metric.documentation, metric.unit if openmetrics else ""))
        lines += [
            f"{series(sample.name, sample.labels)} {sample.value!r}\n"
            for sample in metric.samples
            if sample.native_histogram is None
        ]
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


def to_protobuf(metrics: Iterable[Metric]) -> bytes:
    """io.prometheus.client.MetricFamily (metrics.proto of prometheus/client_model), each after its length."""
    return b"".join(_delimited(_family(metric)) for metric in metrics)


def _plain_name(metric: Metric) -> tuple[str, str]:
    """(name, type) as before OpenMetrics, where a counter's name had its suffix and info was unknown."""
    match metric.type:
        case "counter":
            return f"{metric.name}_total", "counter"
        case "info":
            return f"{metric.name}_info", "gauge"
        case kind:
            return metric.name, kind


def _family(metric: Metric) -> bytes:
    name, _ = _plain_name(metric)
    head = _bytes(1, name.encode()) + _bytes(2, metric.documentation.encode()) + _int(3, _TYPES[metric.type])
    if metric.type not in ("histogram", "summary"):
        field = 3 if metric.type == "counter" else 2
        points = [_labels(sample.labels) + _bytes(field, _double(1, sample.value)) for sample in metric.samples]
    else:
        own = "le" if metric.type == "histogram" else "quantile"
        write = _histogram if metric.type == "histogram" else _summary
        points = []
        for labels, samples in groupby(metric.samples, lambda sample: _without(sample.labels, own)):
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


def _without(labels: dict[str, str], own: str) -> dict[str, str]:
    return {label: value for label, value in labels.items() if label != own}


def _labels(labels: dict[str, str]) -> bytes:
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
    """protobuf's sint: 0, −1, 1, −2 become 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(value)


def _delimited(value: bytes) -> bytes:
    return _varint(len(value)) + value
