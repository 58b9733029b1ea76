"""What a replica reports of itself, and the answers made of the reports of all replicas."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.predictor import Predictor
from mtl_ray.inference.statistics import Statistics, read_statistics
from mtl_ray.serving.metrics import added
from mtl_ray.serving.reply import Reply, RequestError, as_json, quoted
from mtl_ray.serving.routes import Routes
from mtl_ray.serving.service import Service


@dataclass(frozen=True, kw_only=True)
class ReplicaReport:
    """The counts of one replica since it started.

    Attributes:
        metrics: value by series (``metrics.py``).
        statistics: ``Statistics.to_json`` by key of the predictor.
    """

    metrics: Mapping[str, float]
    statistics: Mapping[str, Any]


Exchange = Callable[[ReplicaReport], Sequence[ReplicaReport]]
"""Takes the report of this replica and gives those of all."""


def alone(report: ReplicaReport) -> Sequence[ReplicaReport]:
    """The exchange of a server without further replicas."""
    return (report,)


def statistics_reply(service: Service, model: str, reports: Sequence[ReplicaReport]) -> Reply:
    """The answer to ``GET /models/MODEL/statistics``.

    Raises:
        RequestError: 404 if there is no such model.
    """
    routes = Routes(service.predictors, service.config.models)
    if model not in routes.names:
        raise RequestError(
            404, f"there is no model {quoted(model)}; there is {', '.join(routes.names)}"
        )
    described = {}
    for version, key in routes.versions_of(model).items():
        described[version] = _described(_total(reports, key), service.predictors[key])
    return as_json({"model": model, **(described.get("") or {"versions": described})})


def joined(reports: Sequence[ReplicaReport]) -> ReplicaReport:
    """Several reports as one."""
    keys = dict.fromkeys(key for each in reports for key in each.statistics)
    return ReplicaReport(
        metrics=added(each.metrics for each in reports),
        statistics={key: _total(reports, key).to_json() for key in keys},
    )


def _total(reports: Sequence[ReplicaReport], key: str) -> Statistics:
    """The statistics of one predictor."""
    total = Statistics()
    for report in reports:
        if key in report.statistics:
            total.merge(read_statistics(report.statistics[key]))
    return total


def _described(total: Statistics, predictor: Predictor) -> dict[str, Any]:
    baseline = predictor.baseline if isinstance(predictor, BundlePredictor) else None
    if baseline is None:
        return {"requests": total.to_json(), "baseline": None, "comparison": None}
    return {
        "requests": total.to_json(),
        "baseline": baseline.to_json(),
        "comparison": total.compare(baseline),
    }
