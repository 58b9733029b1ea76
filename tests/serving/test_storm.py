"""A storm of bad requests: the maker of the requests, and a small storm against a real server
(``make storm`` runs a large one).
"""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.bundles import make_bundle, two_halves
from tests.serving.server import running
from tests.serving.storm import wire
from tests.serving.storm.attacks import MAKERS, MAX_BODY, MAX_PIXELS, Attack, attack
from tests.serving.storm.clouds import cloud_bundle
from tests.serving.storm.run import one, server, storm
from tests.serving.storm.wire import PAGE, Outcome, judge

HEAD = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n"


def test_a_seed_gives_the_same_attacks_and_all_kinds() -> None:
    picture = two_halves()
    made = [attack(3, number, picture) for number in range(1000)]
    assert made == [attack(3, number, picture) for number in range(1000)]
    assert made != [attack(4, number, picture) for number in range(1000)]
    assert {each.kind for each in made} == {maker.__name__ for maker in MAKERS}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (HEAD + b'{"code": 400, "message": "the body is empty"}', None),
        (HEAD + b'{"error": "no tensor is called image"}', None),
        (HEAD + b"<html><h1>400 Bad request</h1></html>", "no JSON"),
        (HEAD + b'{"code": 400, "message": "Traceback (most recent call last)"}', "no sentence"),
        (HEAD + b'{"code": 400, "message": "two\\nlines"}', "no sentence"),
        (HEAD + b'["message"]', "no JSON"),
        (HEAD.replace(b"400", b"500") + b'{"message": "oh"}', "status 500"),
        (HEAD.replace(b"400", b"200") + b"{}", "status 200 to what must fail"),
        (b"\x00\x01", "no HTTP"),
        (b"", "no answer"),
    ],
)
def test_answers_are_judged(answer: bytes, fault: str | None) -> None:
    found = judge(Attack(kind="any", sends=()), Outcome(answer=answer, seconds=0.0))
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_the_page_of_haproxy_is_right_for_what_is_no_http_alone() -> None:
    outcome = Outcome(answer=HEAD + PAGE + b"\n", seconds=0.0)
    assert judge(Attack(kind="any", sends=(), no_http=True), outcome) is None
    assert "no JSON" in str(judge(Attack(kind="any", sends=()), outcome))


def test_silence_is_judged() -> None:
    hung = Outcome(answer=b"", seconds=40.0, hung=True)
    gone = Attack(kind="any", sends=(), end="close", may_be_silent=True)
    assert judge(gone, Outcome(answer=b"", seconds=0.0)) is None
    assert "no end" in str(judge(Attack(kind="any", sends=(), may_be_silent=True), hung))


def reaches_the_application(made: Attack) -> bool:
    """Not what HAProxy refuses before it, and uvicorn in words of its own."""
    first = made.sends[0]
    assert isinstance(first, bytes)
    refused = made.kind == "slow" or (made.no_http and made.kind != "bad_headers")
    return not refused and not first.startswith((b"BREW", b"post"))


@pytest.mark.parametrize("seed", range(2))
def test_a_storm_against_the_application(
    seed: int, bundle: Callable[..., str], tmp_path: Path
) -> None:
    """Without Ray and HAProxy: what reaches the application, many at once."""
    config = ServeConfig(max_body_bytes=MAX_BODY, max_pixels=MAX_PIXELS, timeout_s=30.0)
    image = BundlePredictor(bundle("boxes", "labels"), threads=1)
    cloud = BundlePredictor(cloud_bundle(tmp_path / "cloud"), threads=1)
    app = App(Service({"image": image, "cloud": cloud}, config), config, parallel=2)
    picture = two_halves()
    numbers = [
        number for number in range(400) if reaches_the_application(attack(seed, number, picture))
    ][:150]
    with running(app) as port, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: one(port, seed, number, picture), numbers))
        assert one(port, seed, numbers[0], picture)[3] is None, "it still answers"
    assert app.limits.held.count == 0
    app.close()
    assert [each for each in found if each[3] is not None] == []


@pytest.mark.slow
def test_a_small_storm(tmp_path: Path) -> None:
    """Its times say nothing on a busy machine: ``make storm`` judges them."""
    models = {
        "image": make_bundle(tmp_path / "image", "boxes", "labels"),
        "cloud": cloud_bundle(tmp_path / "cloud"),
    }
    picture = two_halves()
    with server(models, "serve.timeout_s=20") as (port, pid, log):
        report = storm(port, pid, log, picture, requests=300, seed=7, per_second=40, block=100)
    told = report.to_text()
    assert not report.faults, told
    assert (report.lost, report.tracebacks, report.refused) == ([], 0, 0), told
    assert report.growth < 0.25, told
    assert len(report.stormy) > 20, told


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 413 X\r\nContent-Length: 3\r\n\r\n{}", False),
        (b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n", False),
        (b"HTTP/1.1 200 X\r\n\r\n{}", False),
        (b"", False),
    ],
)
def test_an_answer_that_stops_halfway_is_a_fault(answer: bytes, whole: bool) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(0.05)
        there.sendall(answer)
        assert wire._read(here) == (answer, not whole)
