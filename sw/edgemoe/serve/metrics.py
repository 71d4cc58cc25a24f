"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from edgemoe.serve.engine import Engine, Found
from edgemoe.version import __version__

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_MODEL = ("model", "version")
_LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds


class Metrics:
    """Counters of one server; ``watch`` names its models."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "edgemoe_requests",
            "Inference requests that were answered, by HTTP status.",
            (*_MODEL, "code"),
            registry=registry,
        )
        self._failures = Counter("edgemoe_failures", "Programs that failed on the device.", _MODEL, registry=registry)
        self._inferences = Counter(
            "edgemoe_inferences", "Predictions: images times tasks.", (*_MODEL, "task"), registry=registry
        )
        self._cycles = Counter(
            "edgemoe_device_cycles",
            "Cycles that the accelerator has counted; none on the reference.",
            _MODEL,
            registry=registry,
        )
        self._seconds = Counter(
            "edgemoe_device_seconds", "Seconds that programs took, on the device's clock.", _MODEL, registry=registry
        )
        self._latencies = Histogram(
            "edgemoe_request_seconds",
            "From a request's headers to its response, of those with status 200.",
            _MODEL,
            buckets=_LATENCIES,
            registry=registry,
        )
        self._depth = Gauge("edgemoe_queue_depth", "Requests that wait for the device.", _MODEL, registry=registry)
        self._limit = Gauge("edgemoe_queue_limit", "Requests that may wait.", _MODEL, registry=registry)
        self.ready = Gauge("edgemoe_ready", "1: takes requests; 0: ends, or its device is stuck.", registry=registry)
        self.open_requests = Gauge(
            "edgemoe_open_requests", "Inference requests without a response yet.", registry=registry
        )
        self._info = Gauge(
            "edgemoe_info",
            "Always 1; what is served.",
            (*_MODEL, "device", "config", "sha256", "edgemoe"),
            registry=registry,
        )

    def watch(self, engines: Sequence[Engine]) -> None:
        """Show these models from the beginning, with zeros."""
        for engine in engines:
            label = _label(engine)
            self._depth.labels(*label).set_function(lambda engine=engine: engine.waiting)
            self._limit.labels(*label).set(engine.limit)
            bundle = engine.bundle
            device = engine.accelerator.device
            self._info.labels(*label, device, bundle.config.name, bundle.sha256, __version__).set(1)
            for metric in (self._failures, self._cycles, self._seconds, self._latencies):
                metric.labels(*label)
            for task in bundle.tasks:
                self._inferences.labels(*label, task)

    def answered(self, engine: Engine, status: int, seconds: float) -> None:
        """A request has its response."""
        self._requests.labels(*_label(engine), str(status)).inc()
        if status == 200:
            self._latencies.labels(*_label(engine)).observe(seconds)

    def ran(self, engine: Engine, found: Found | BaseException) -> None:
        """The device has run something, or failed."""
        label = _label(engine)
        if isinstance(found, BaseException):
            self._failures.labels(*label).inc()
            return
        every = [prediction for predictions in found for prediction in predictions.values()]
        for task, count in Counts(prediction.task for prediction in every).items():
            self._inferences.labels(*label, task).inc(count)
        self._seconds.labels(*label).inc(sum(prediction.stats.device_seconds_each for prediction in every))
        self._cycles.labels(*label).inc(sum(prediction.stats.cycles_each or 0.0 for prediction in every))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        text: bytes = generate_latest(self._registry)
        return text


def _label(engine: Engine) -> tuple[str, str]:
    return engine.name, engine.version
