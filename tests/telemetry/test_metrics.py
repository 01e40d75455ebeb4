"""Tests for the Prometheus text exposition format."""

import pytest

from telemetry import Metrics


def test_metrics_render_as_prometheus_text() -> None:
    metrics = Metrics()
    metrics.counter("answers_total", "Answers", "rcode").inc(2, rcode='NO"ERROR')
    latency = metrics.histogram("seconds", "Latency", (0.1, 1))
    for value in (0.05, 0.1, 0.5, 7):
        latency.observe(value)
    assert metrics.render().splitlines() == [
        "# HELP answers_total Answers",
        "# TYPE answers_total counter",
        'answers_total{rcode="NO\\"ERROR"} 2',
        "# HELP seconds Latency",
        "# TYPE seconds histogram",
        'seconds_bucket{le="0.1"} 2',
        'seconds_bucket{le="1"} 3',
        'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 7.65",
        "seconds_count 4",
    ]


def test_labels_must_be_the_declared_ones() -> None:
    counter = Metrics().counter("answers_total", "Answers", "rcode")
    with pytest.raises(ValueError, match="expected labels"):
        counter.inc()
