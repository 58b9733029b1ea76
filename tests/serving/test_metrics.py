"""Prometheus metrics, request ids and the log of requests."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mtl_ray.serving.app import open_app
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.metrics import FAMILIES, Metrics, added, counters_of, exposition, family_of
from tests.serving.test_app import call

ROOT = Path(__file__).parents[2]


def test_a_prometheus_client_reads_what_the_server_counts(
    bundle: Callable[..., str], picture: bytes
) -> None:
    app = open_app(ServeConfig(models={"boxes": bundle("boxes")}), 1, {})
    for content, path in (
        (picture, "boxes"),
        (picture, "boxes"),
        (b"x", "boxes"),
        (picture, 'no%0Asuch"model'),
    ):
        call(app, "POST", f"/predictions/{path}", content=content)
    call(app, "GET", "/models")
    answer = call(app, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    requests = {
        (each.labels["model"], each.labels["status"]): each.value
        for each in families["mtl_ray_requests"].samples
    }
    assert requests == {("boxes", "200"): 2, ("boxes", "400"): 1, ("", "404"): 1}
    buckets = [
        each
        for each in families["mtl_ray_request_seconds"].samples
        if each.name.endswith("_bucket") and each.labels["model"] == "boxes"
    ]
    values = [each.value for each in buckets]
    assert values == sorted(values)
    assert (buckets[-1].labels["le"], values[-1]) == ("+Inf", 3)
    assert families["mtl_ray_replicas"].samples[0].value == 1
    assert families["mtl_ray_queue"].samples[0].labels == {"model": "boxes"}
    app.close()


def test_counts_of_replicas_are_added_and_ended_ones_have_no_gauges() -> None:
    parts = []
    for seconds in (0.004, 0.3):
        metrics = Metrics()
        metrics.request("m", "1", 200, seconds)
        parts.append({**metrics.snapshot(), "mtl_ray_replicas": 1.0})
    total = added(parts)
    assert total['mtl_ray_requests_total{model="m",version="1",status="200"}'] == 2
    assert total['mtl_ray_request_seconds_bucket{model="m",version="1",le="0.005"}'] == 1
    assert total['mtl_ray_request_seconds_bucket{model="m",version="1",le="+Inf"}'] == 2
    assert total['mtl_ray_request_seconds_sum{model="m",version="1"}'] == pytest.approx(0.304)
    assert total["mtl_ray_replicas"] == 2
    assert "mtl_ray_replicas" not in counters_of(total)
    assert len(counters_of(total)) == len(total) - 1
    assert exposition(total).body.endswith(b"\n")


def test_the_dashboard_asks_for_what_there_is() -> None:
    board = json.loads((ROOT / "clusters" / "grafana" / "serving.json").read_text())
    texts = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for text in texts for name in re.findall(r"mtl_ray_\w+", text)}
    assert {family_of(name) for name in asked} <= FAMILIES.keys()
    assert len(asked) >= 6


def test_ids_and_one_line_for_each_request(
    bundle: Callable[..., str], picture: bytes, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    app = open_app(ServeConfig(models={"boxes": bundle("boxes")}, request_log=str(log)), 1, {})
    asked = [
        call(app, "POST", "/predictions/boxes?score_thr=0", content=picture, headers=headers)
        for headers in (
            {"X-Request-ID": "abc-1"},
            {},
            {"X-Request-ID": 'bad id"\t{'},
            {"X-Request-ID": "x" * 129},
        )
    ]
    ids = [each.headers["x-request-id"] for each in asked]
    assert ids[0] == "abc-1"
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids[1:])
    assert len(set(ids)) == 4
    call(app, "GET", "/nothing")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["id"] for each in lines[:4]] == ids
    assert lines[0] | {"time": "", "ms": 0} == {
        "time": "",
        "id": "abc-1",
        "method": "POST",
        "path": "/predictions/boxes",
        "status": 200,
        "ms": 0,
        "bytes_in": len(picture),
        "bytes_out": len(asked[0].content),
        "model": "boxes",
        "version": "",
        "key": "",
    }
    assert lines[0]["ms"] > 0
    assert (lines[4]["path"], lines[4]["status"]) == ("/nothing", 404)
    app.close()


def test_a_log_that_cannot_be_written_is_said_at_once(
    bundle: Callable[..., str], tmp_path: Path
) -> None:
    config = ServeConfig(
        models={"boxes": bundle("boxes")}, request_log=str(tmp_path / "no" / "file")
    )
    with pytest.raises(ValueError, match=r"serve\.request_log"):
        open_app(config, 1, {})
