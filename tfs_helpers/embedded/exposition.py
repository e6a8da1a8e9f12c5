"""One metric as Prometheus reads it, written as the real server writes it (prometheus_exporter.cc).

prometheus_client writes another form: names that end in `_total`, a HELP line and a creation time for each metric.
Dashboards made for the real server ask for its names.
"""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.samples import Sample

__all__ = ["cells_of", "lines_of"]

Labels = tuple[tuple[str, str], ...]
_LIMIT = "le"


def lines_of(name: str, metric: Metric) -> Iterator[str]:
    """The lines of a metric: its type, then its cells, sorted by their labels; only its type where it has none.

    Args:
        name: its name on the page.
        metric: as its collector collects it.
    """
    yield f"# TYPE {name} {metric.type}"
    write = _histogram if metric.type == "histogram" else _scalar
    for labels, samples in cells_of(metric):
        yield from write(name, [f'{key}="{_escaped(value)}"' for key, value in labels], samples)


def cells_of(metric: Metric) -> list[tuple[Labels, list[Sample]]]:
    """The cells of a metric in the order of the page: what is told of each, by its labels.

    A metric without labels has no cell until something is counted.
    """
    cells: dict[Labels, list[Sample]] = {}
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            labels = tuple(label for label in sample.labels.items() if label[0] != _LIMIT)
            cells.setdefault(labels, []).append(sample)
    return [(labels, samples) for labels, samples in sorted(cells.items()) if labels or any(s.value for s in samples)]


def _scalar(name: str, labels: list[str], samples: list[Sample]) -> Iterator[str]:
    for sample in samples:
        yield f"{name}{{{','.join(labels)}}} {sample.value:.0f}"


def _histogram(name: str, labels: list[str], samples: list[Sample]) -> Iterator[str]:
    count, total = 0.0, 0.0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            count = sample.value
            limit = f'{_LIMIT}="{_limit(sample.labels[_LIMIT])}"'
            yield f"{name}_bucket{{{','.join([*labels, limit])}}} {count:.0f}"
        elif sample.name.endswith("_sum"):
            total = sample.value
    yield f"{name}_sum{{{','.join(labels)}}} {total:g}"
    yield f"{name}_count{{{','.join(labels)}}} {count:.0f}"


def _limit(text: str) -> str:
    """A bucket's limit in six significant digits, as absl writes numbers."""
    return text if text == "+Inf" else f"{float(text):g}"


def _escaped(value: str) -> str:
    """A label's value. The real server leaves line breaks in, with which a client can spoil its page."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
