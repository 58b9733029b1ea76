"""API keys with names and rates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_ray.serving.app import open_app
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.keys import ApiKey, Gate, read_keys
from mtl_ray.serving.reply import RequestError
from tests.serving.test_app import call

KEYS = {"camera": {"key": "sesame", "per_second": 0.01, "burst": 3}, "office": {"key": "open"}}


class Clock:
    """Time that stands still until it is told otherwise."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def allowed(gate: Gate, name: str, count: int) -> int:
    """How many of some requests pass at once."""
    passed = 0
    for _ in range(count):
        try:
            gate.take(name)
            passed += 1
        except RequestError:
            continue
    return passed


def test_a_key_may_burst_and_then_keeps_its_rate() -> None:
    clock = Clock()
    gate = Gate({"camera": ApiKey(key="x", per_second=2, burst=3)}, clock)
    assert allowed(gate, "camera", 10) == 3
    clock.now += 1
    assert allowed(gate, "camera", 10) == 2
    clock.now += 1000
    assert allowed(gate, "camera", 10) == 3
    passed = 0
    for _ in range(100):
        clock.now += 0.1
        passed += allowed(gate, "camera", 1)
    assert passed == 20


def test_retry_after_is_when_it_passes() -> None:
    clock = Clock()
    gate = Gate({"slow": ApiKey(key="x", per_second=0.1)}, clock)
    gate.take("slow")
    with pytest.raises(RequestError) as error:
        gate.take("slow")
    wait_s = int(error.value.reply.headers["Retry-After"])
    assert wait_s == 10
    clock.now += wait_s
    gate.take("slow")


def test_replicas_share_a_rate_and_other_keys_have_their_own() -> None:
    clock = Clock()
    gate = Gate({"a": ApiKey(key="x", per_second=4), "b": ApiKey(key="y")}, clock)
    gate.replicas = 2
    assert allowed(gate, "a", 10) == 2
    assert allowed(gate, "b", 10) == 10
    clock.now += 1
    assert allowed(gate, "a", 10) == 2


def test_over_http(
    bundle: Callable[..., str], picture: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    monkeypatch.setenv("SERVER_KEYS", json.dumps(KEYS))
    config = ServeConfig(
        models={"boxes": bundle("boxes")}, api_keys_env="SERVER_KEYS", request_log=str(log)
    )
    app = open_app(config, 1, read_keys(config))

    def ask(key: str, path: str = "/predictions/boxes?score_thr=0.5") -> int:
        method, content = ("POST", picture) if "predictions" in path else ("GET", None)
        headers = {"Authorization": f"Bearer {key}"}
        answer = call(app, method, path, content=content, headers=headers)
        if answer.status_code == 429:
            assert answer.headers["retry-after"] in ("99", "100")
            assert answer.json()["message"].startswith("the key 'camera' may send 0.01 requests")
        return answer.status_code

    assert [ask("sesame") for _ in range(5)] == [200, 200, 200, 429, 429]
    assert [ask("open") for _ in range(5)] == [200] * 5
    assert ask("guessed") == 401
    assert ask("  open") == 200, "RFC 6750 allows several blanks before a key"
    for path in ("/models", "/metrics", "/models/boxes/statistics"):
        assert ask("sesame", path) == 200
        assert ask("guessed", path) == 401
        assert ask("", path) == 401
    headers = {"Authorization": "Bearer open"}
    counts = call(app, "GET", "/metrics", headers=headers).text
    assert 'mtl_ray_limited_total{key="camera"} 2' in counts
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["key"] for each in lines[:6]] == ["camera"] * 5 + ["office"]
    for secret in ("sesame", "open", "guessed", "score_thr"):
        assert secret not in log.read_text()
        assert secret not in repr(app.limits.gate.keys)
    app.close()


def test_keys_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KEYS))
    monkeypatch.setenv("SERVER_KEYS", str(path))
    keys = read_keys(ServeConfig(api_keys_env="SERVER_KEYS"))
    assert keys["camera"] == ApiKey(key="sesame", per_second=0.01, burst=3)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "topsecret",
        '{"camera": "topsecret"}',
        '{"camera": {"key": "topsecret", "rate": 1}}',
        '{"camera": {"key": "topsecret", "per_second": -1}}',
        '{"camera": {"key": 7}}',
        '{"a": {"key": "topsecret"}, "b": {"key": "topsecret"}}',
        '{"a b": {"key": "topsecret"}}',
        "{}",
        '{"topsecret',
    ],
)
def test_mistakes_show_no_key(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEYS", content)
    with pytest.raises(ValueError, match=r"SERVER_KEYS|serve\.api_keys_env") as error:
        read_keys(ServeConfig(api_keys_env="SERVER_KEYS"))
    assert "topsecret" not in str(error.value)
