"""The families as Prometheus reads them. Imported only by a node that serves /metrics.

prometheus_client writes the exposition formats (text and OpenMetrics, by what the scraper accepts), escapes labels
and tells of the process; the figures are ours, read when a scrape comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from lattice_core.histogram import HistogramReading
from lattice_core.server.families import FAMILIES, Family

if TYPE_CHECKING:
    from lattice_core.server.node import Node


class NodeCollector(Collector):
    """Reads one node's families, all at the same moment. Call it on the node's loop."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> Iterable[Metric]:
        """Names only, so that registering reads nothing."""
        return [_family(each) for each in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        return [_filled(each, self._node) for each in FAMILIES]


class Exporter:
    """What /metrics answers."""

    def __init__(self, node: Node) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(node))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body, for a scraper that sent this Accept header."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)


def _family(family: Family) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match family.kind:
        case "counter":
            return CounterMetricFamily(family.name, family.help, labels=family.labels)
        case "gauge":
            return GaugeMetricFamily(family.name, family.help, labels=family.labels)
        case "histogram":
            return HistogramMetricFamily(family.name, family.help, labels=family.labels)


def _filled(family: Family, node: Node) -> Metric:
    metric = _family(family)
    for labels, value in family.read(node):
        if isinstance(value, HistogramReading):
            assert isinstance(metric, HistogramMetricFamily)
            bounds = [*map(str, value.bounds), "+Inf"]
            buckets = list(zip(bounds, value.cumulative, strict=True))
            metric.add_metric(labels, buckets=buckets, sum_value=value.total_seconds)
        else:
            assert not isinstance(metric, HistogramMetricFamily)
            metric.add_metric(labels, value)
    return metric
