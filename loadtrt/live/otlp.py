"""A run's metrics as OpenTelemetry's protocol has them. Needs opentelemetry-proto, the protocol's messages."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as proto
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

import loadtrt
from loadtrt.live.metrics import together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prometheus_client import Metric
    from prometheus_client.samples import Sample

    from loadtrt.live.metrics import Observation

# UCUM's names of the units. Receivers that write to Prometheus know names that end in the unit already.
_UNITS = {
    "seconds": "s",
    "ratio": "1",
    "hertz": "Hz",
    "watts": "W",
    "joules": "J",
    "celsius": "Cel",
    "bytes": "By",
}


def to_export_request(seen: Observation) -> bytes:
    """ExportMetricsServiceRequest. The user's labels are attributes of every point: attributes of the resource would be
    on `target_info` alone in Prometheus."""
    at: dict[str, Any] = {"time_unix_nano": seen.now_ns, "start_time_unix_nano": seen.snapshot.started_ns}
    labels = seen.facts.labels
    service = {
        "service.name": "loadtrt",
        "service.version": loadtrt.__version__,
        "service.instance.id": seen.facts.host,
    }
    scope = proto.ScopeMetrics(
        scope=InstrumentationScope(name="loadtrt", version=loadtrt.__version__),
        metrics=[_metric(metric, labels, at) for metric in together([seen])],
    )
    whole = proto.ResourceMetrics(resource=Resource(attributes=_attributes(service)), scope_metrics=[scope])
    return ExportMetricsServiceRequest(resource_metrics=[whole]).SerializeToString()


def _metric(metric: Metric, labels: Mapping[str, str], at: Mapping[str, Any]) -> proto.Metric:
    name = f"{metric.name}_info" if metric.type == "info" else metric.name  # Prometheus adds _total by itself
    whole = proto.Metric(name=name, description=metric.documentation, unit=_UNITS.get(metric.unit, ""))
    if metric.type in ("histogram", "summary"):
        own = "le" if metric.type == "histogram" else "quantile"
        for shared, samples in groupby(metric.samples, lambda it: {k: v for k, v in it.labels.items() if k != own}):
            attributes = _attributes({**shared, **labels})
            if metric.type == "histogram":
                whole.histogram.data_points.append(_histogram(metric.name, list(samples), attributes, at))
            else:
                ranks = [
                    proto.SummaryDataPoint.ValueAtQuantile(quantile=float(it.labels["quantile"]), value=it.value)
                    for it in samples
                ]
                whole.summary.data_points.append(
                    proto.SummaryDataPoint(attributes=attributes, quantile_values=ranks, **at)
                )
        if metric.type == "histogram":
            whole.histogram.aggregation_temporality = proto.AGGREGATION_TEMPORALITY_CUMULATIVE
        return whole
    points = [
        proto.NumberDataPoint(attributes=_attributes({**it.labels, **labels}), as_double=it.value, **at)
        for it in metric.samples
    ]
    if metric.type == "counter":
        whole.sum.data_points.extend(points)
        whole.sum.is_monotonic = True
        whole.sum.aggregation_temporality = proto.AGGREGATION_TEMPORALITY_CUMULATIVE
    else:
        whole.gauge.data_points.extend(points)
    return whole


def _histogram(
    name: str, samples: Sequence[Sample], attributes: list[KeyValue], at: Mapping[str, Any]
) -> proto.HistogramDataPoint:
    """Counts of each bucket, where Prometheus has those up to each bound."""
    reached = {it.labels["le"]: int(it.value) for it in samples if it.name == f"{name}_bucket"}
    totals = {it.name.removeprefix(name): it.value for it in samples}
    counts = list(reached.values())
    return proto.HistogramDataPoint(
        attributes=attributes,
        explicit_bounds=[float(bound) for bound in reached if bound != "+Inf"],
        bucket_counts=[count - before for before, count in zip([0, *counts], counts, strict=False)],
        count=int(totals["_count"]),
        sum=totals["_sum"],
        **at,
    )


def _attributes(values: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in values.items()]
