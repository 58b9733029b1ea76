"""A storm of bad requests: the maker of the requests, and a small storm against a real server
(``make storm`` runs a large one).
"""

from pathlib import Path

import pytest

from tests.serving.bundles import make_bundle, two_halves
from tests.serving.storm.attacks import MAKERS, Attack, attack
from tests.serving.storm.run import server, storm
from tests.serving.storm.wire import Outcome, judge

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


def test_silence_is_judged() -> None:
    hung = Outcome(answer=b"", seconds=40.0, hung=True)
    gone = Attack(kind="any", sends=(), end="close", may_be_silent=True)
    assert judge(gone, Outcome(answer=b"", seconds=0.0)) is None
    assert "no end" in str(judge(Attack(kind="any", sends=(), may_be_silent=True), hung))


@pytest.mark.jobs
def test_a_small_storm(tmp_path: Path) -> None:
    """Its times say nothing on a busy machine: ``make storm`` judges them."""
    from tests.serving.storm.clouds import cloud_bundle

    models = {
        "image": make_bundle(tmp_path / "image", "boxes", "labels"),
        "cloud": cloud_bundle(tmp_path),
    }
    picture = two_halves()
    with server(models, "serve.timeout_s=20") as (port, pid, log):
        report = storm(port, pid, log, picture, requests=300, seed=7, per_second=40, block=100)
    told = report.to_text()
    assert not report.faults, told
    assert (report.lost, report.tracebacks, report.refused) == (0, 0, 0), told
    assert report.growth < 0.25, told
    assert len(report.stormy) > 20, told
