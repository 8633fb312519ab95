"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evalkit_http.service.job import Job
from evalkit_http.service.jobs import JobStore
from evalkit_http.service.slots import Slots

BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


class Metrics(Collector):
    """Numbers of the store at the moment they are read, and how long jobs waited and ran."""

    def __init__(self, store: JobStore, slots: Slots) -> None:
        self.store, self.slots = store, slots
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.waited = self._histogram("evalkit_job_wait_seconds", "From submission to start")
        self.ran = self._histogram("evalkit_job_run_seconds", "From start to end")

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("kind",), buckets=BUCKETS, registry=self.registry)

    def observe(self, job: Job) -> None:
        """Count a job that ended."""
        if job.started is not None and job.completed is not None:
            self.waited.labels(job.kind).observe(max(0.0, job.started - job.created))
            self.ran.labels(job.kind).observe(max(0.0, job.completed - job.started))

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        jobs = GaugeMetricFamily("evalkit_jobs", "Jobs that are kept, by status", labels=("status",))
        for status, count in self.store.counts().items():
            jobs.add_metric((status,), count)
        yield jobs
        ended = CounterMetricFamily("evalkit_jobs_ended", "Jobs that ever ended, by status", labels=("status",))
        for status, count in self.store.ended().items():
            ended.add_metric((status,), count)
        yield ended
        busy = GaugeMetricFamily("evalkit_slot_busy", "Whether a job runs on a device slot", labels=("device",))
        free = set(self.slots.free)
        for name in self.slots.names:
            busy.add_metric((name,), float(name not in free))
        yield busy

    def text(self) -> bytes:
        """All of them in Prometheus's format."""
        return generate_latest(self.registry)
