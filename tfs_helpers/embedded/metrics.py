"""What the server counts, under the names of the real server's metrics.

Counted is what TensorFlow Serving itself counts, and how models were loaded. TensorFlow counts more (`graph_runs` and
the like), in a registry that its C library does not show: that is left out rather than guessed.
"""

import math
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tfs_helpers.embedded.exposition import cells_of, lines_of
from tfs_helpers.embedded.status import Code

__all__ = ["BatchMetrics", "Metrics", "monitoring_path"]

_SERVING = ":tensorflow:serving:"
_BATCHING = f"{_SERVING}batching_session:"
_LOADING = ":tensorflow:cc:saved_model:"
_DEFAULT_PATH = "/monitoring/prometheus/metrics"

_MOST_MODELS = 1000
_LONGEST_MODEL = 256
_OTHERS = "(other models)"

AnyMetric = TypeVar("AnyMetric", bound=MetricWrapperBase)


def monitoring_path(config: Any) -> str | None:
    """Where the page is, by a MonitoringConfig proto; None where nobody wants it."""
    prometheus = config.prometheus_config
    return (prometheus.path or _DEFAULT_PATH) if prometheus.enable else None


class _Cells(dict[tuple[str, ...], AnyMetric]):
    """A metric's cells by their labels: what is counted on every request is one look into a dictionary away."""

    def __init__(self, metric: AnyMetric) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> AnyMetric:
        # Two threads may come here at once; both get the same cell.
        cell = self[labels] = self._metric.labels(*labels)
        return cell


class _Page:
    """The metrics in the making, and then as text."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[MetricWrapperBase, bool]] = {}

    def add(self, name: str, metric: AnyMetric, *, late: bool = False) -> AnyMetric:
        """Show a metric; a late one only once something was counted."""
        self._metrics[name] = metric, late
        return metric

    def counter(self, name: str, *labels: str) -> _Cells[Counter]:
        return _Cells(self.add(name, Counter(name, "", labels, registry=None)))

    def histogram(self, name: str, limits: list[float], *labels: str, late: bool = False) -> _Cells[Histogram]:
        return _Cells(self.add(name, Histogram(name, "", labels, registry=None, buckets=limits), late=late))

    def first_value(self, path: str) -> int:
        """The first cell of a counter by TensorFlow's name for it, 0 where there is none."""
        metric, _ = self._metrics.get(path.replace("/", ":"), (None, False))
        for family in metric.collect() if isinstance(metric, Counter) else ():
            for _, samples in cells_of(family):
                return int(samples[0].value)
        return 0

    def text(self) -> bytes:
        """The page, sorted by the names that TensorFlow gives its metrics: slashes where these have colons."""
        page: list[str] = []
        for name, (metric, late) in sorted(self._metrics.items(), key=lambda item: item[0].replace(":", "/")):
            for family in metric.collect():
                lines = list(lines_of(name, family))
                if len(lines) > 1 or not late:
                    page += lines
        return ("\n".join(page) + "\n").encode(errors="replace")


def _limits(first: float, factor: float, count: int) -> list[float]:
    """The limits of `Buckets::Exponential`. What equals a limit is above it there; in Prometheus's library, below."""
    limits = [first]
    while len(limits) < count:
        limits.append(limits[-1] * factor)
    return [math.nextafter(limit, 0.0) for limit in limits]


_MICROSECONDS = _limits(10, 1.8, 33)
_SIZES = _limits(1, 2, 14)


class BatchMetrics:
    """What is counted of batches (batching_session.cc); safe to use from several threads at once."""

    def __init__(self, page: _Page) -> None:
        self._queuing = page.histogram(f"{_BATCHING}queuing_latency", _limits(100, 1.2, 52), "thread_pool_name")
        self._runs = page.add(name := f"{_BATCHING}wrapped_run_count", Counter(name, "", registry=None))
        self._padding = page.histogram(f"{_BATCHING}padding_size", _SIZES, "execution_batch_size", late=True)
        self._input_size, self._processed_size = (
            page.add(name, Histogram(name, "", registry=None, buckets=_SIZES), late=True)
            for name in (f"{_BATCHING}input_batch_size", f"{_BATCHING}processed_batch_size")
        )

    def request(self, size: int, tensors: int) -> None:
        """A request with so many rows in each of its input tensors is about to be queued."""
        for _ in range(tensors):
            self._input_size.observe(size)

    def queuing(self, seconds: float) -> None:
        """A request has waited so long for its batch."""
        self._queuing[("",)].observe(int(seconds * 1e6))

    def batch(self, processed_size: int, padding: int) -> None:
        """A batch is put together: so many rows, so many of which are padding."""
        self._padding[(str(processed_size),)].observe(padding)
        self._processed_size.observe(processed_size)

    def run(self) -> None:
        """A batch was run, whatever came of it."""
        self._runs.inc()


class Metrics:
    """The counters of one server; safe to use from several threads at once.

    Requests for models that are not there make a cell for each name, in the real server without end. Here a model that
    has answered a request has its cells for ever, and so have the first 1,000 names under which requests only failed;
    further ones, and those of more than 256 characters, are counted together as `(other models)`.

    Attributes:
        batching: what is counted of batches.
    """

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._page = page = _Page()
        self._requests = page.counter(f"{_SERVING}request_count", "model_name", "status")
        self._latency = page.histogram(f"{_SERVING}request_latency", _MICROSECONDS, "model_name", "API", "entrypoint")
        self._runtime = page.histogram(f"{_SERVING}runtime_latency", _MICROSECONDS, "model_name", "API", "runtime")
        self._examples = page.histogram(f"{_SERVING}request_example_counts", _limits(1, 2, 15), "model")
        self._all_examples = page.counter(f"{_SERVING}request_example_count_total", "model")
        self._warmup = page.histogram(f"{_SERVING}model_warmup_latency", _MICROSECONDS, "model_path", "status")
        self._warmup_records = page.counter(f"{_SERVING}model_warmup_records_read", "model_path", "status")
        self._loads = page.counter(f"{_LOADING}load_attempt_count", "model_path", "status")
        self._load_time = page.counter(f"{_LOADING}load_latency", "model_path")
        # The stock server shows these two and, without a logger or ML Metadata, counts nothing in them.
        page.counter(f"{_SERVING}request_log_count", "model_name", "status_code")
        page.add(name := f"{_SERVING}mlmd_map", Gauge(name, "", ("model_name", "version"), registry=None))
        self.batching = BatchMetrics(page)

    def page(self) -> bytes:
        """The page that Prometheus reads."""
        return self._page.text()

    def first_value(self, path: str) -> int:
        """A counter's value in its first cell: what the `metric_names` of a ReloadConfigRequest ask for.

        Args:
            path: TensorFlow's name, such as `/tensorflow/serving/request_count`. What is no counter is 0.
        """
        return self._page.first_value(path)

    # ---- requests

    def request(self, model: str, code: Code) -> None:
        """A request has been answered, or refused."""
        self._requests[self._name(model, answered=code == Code.OK), code.name].inc()

    def latency(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """A request that succeeded took so long.

        Args:
            model: the name in the request.
            api: `predict`, `classify`, `regress` or nothing by REST; `Predict`, `Classify` or `Regress` by gRPC.
            entrypoint: `REST` or `GRPC`.
            seconds: from the request at the door to its answer.
        """
        self._latency[self._name(model), api, entrypoint].observe(int(seconds * 1e6))

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """A run of a model that succeeded took so long; `api` is `Predict`, `Classify` or `Regress` at either door."""
        self._runtime[self._name(model), api, "TF1"].observe(int(seconds * 1e6))

    def example_counts(self, model: str, count: int) -> None:
        """A MultiInference request that ran had so many examples; those of others are not counted (util.cc)."""
        self._examples[(name := self._name(model),)].observe(count)
        self._all_examples[(name,)].inc(count)

    def _name(self, model: str, *, answered: bool = True) -> str:
        """The name that a model is counted under."""
        if model not in self._models:
            if not answered and (len(self._models) >= _MOST_MODELS or len(model) > _LONGEST_MODEL):
                return _OTHERS
            self._models.add(model)
        return model

    # ---- models

    def loaded(self, model_path: str, seconds: float, *, success: bool) -> None:
        """TensorFlow has loaded the SavedModel in a folder, or failed to (TensorFlow's loader.cc)."""
        self._loads[model_path, "success" if success else "fail"].inc()
        if success:
            self._load_time[(model_path,)].inc(int(seconds * 1e6))

    def warmup(self, model_path: str, status: str, seconds: float, records: int) -> None:
        """The warm-up records of a version have been read to their end, or to where the file is damaged.

        Where a record was refused, nothing is counted (saved_model_warmup_util.cc).

        Args:
            model_path: the version's folder.
            status: `OK`, or the error as absl prints it.
            seconds: how long it took.
            records: how many were replayed.
        """
        self._warmup[model_path, status].observe(int(seconds * 1e6))
        self._warmup_records[model_path, status].inc(records)
