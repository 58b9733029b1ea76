"""Servers that send elsewhere, that are busy, or that answer what is no answer."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.inference import endpoint
from mtl_ray.inference.endpoint import EndpointPredictor, wait_s
from tests.inference.tiny import images

MODELS = {
    "models": [
        {
            "name": "one",
            "heads": {
                "boxes": {
                    "type": "yolov3",
                    "task": "detection",
                    "classes": ["cat", "dog"],
                    "colours": [],
                },
                "semantic": {
                    "type": "fcn",
                    "task": "segmentation",
                    "classes": ["sky", "road"],
                    "colours": [[1, 2, 3], [4, 5, 6]],
                },
            },
            "canvas": {"height": 64, "width": 64, "kind": "stretch"},
        }
    ]
}
Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """A server that answers as it is told; gives its URL and what it was asked."""
    asked: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}", asked
    finally:
        made.shutdown()
        made.server_close()
        thread.join(30)


def models(_: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(MODELS).encode()


def asked_for(answer: bytes) -> Answer:
    return lambda request: models(request) if request.path == "/models" else (200, {}, answer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_does_not_travel_to_another_server(status: int) -> None:
    with (
        server(models) as (other, asked_there),
        server(lambda request: (status, {"Location": f"{other}{request.path}"}, b"")) as (url, _),
    ):
        with pytest.raises(ValueError, match=f"another server, {other}"):
            EndpointPredictor(url, api_key="secret")
        assert asked_there == []


def test_a_redirect_on_the_same_server_is_followed_with_the_key() -> None:
    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        return (
            models(request)
            if request.path == "/here/models"
            else (302, {"Location": f"/here{request.path}"}, b"")
        )

    with server(answer) as (url, asked):
        assert set(EndpointPredictor(url, api_key="secret").heads) == {"boxes", "semantic"}
        assert [request.headers["Authorization"] for request in asked] == ["Bearer secret"] * 2


def test_a_redirect_of_an_image_is_an_error_in_a_sentence() -> None:
    with server(
        lambda request: (
            models(request) if request.path == "/models" else (307, {"Location": "/x"}, b"")
        )
    ) as (url, _):
        predictor = EndpointPredictor(url)
        with pytest.raises(ValueError, match="answered 307"):
            predictor.predict(images(1))


def test_what_retry_after_says() -> None:
    now = datetime.now(UTC)
    assert wait_s("2") == 2
    assert wait_s("0") == 0
    assert wait_s("99999999999999999999") == endpoint.MAX_WAIT_S
    assert 3 < wait_s(format_datetime(now + timedelta(seconds=10), usegmt=True)) <= 10
    assert wait_s(format_datetime(now - timedelta(days=1), usegmt=True)) == 0
    assert wait_s("Fri, 31 Dec 9999 23:59:59 GMT") == endpoint.MAX_WAIT_S
    for nothing in (
        None,
        "",
        "soon",
        "-5",
        "1e9",
        "nan",
        "inf",
        "\u0663",
        "Mon, 99 Foo 2020 99:99:99 GMT",
    ):
        assert wait_s(nothing) == 1


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.text(max_size=40)
    | st.from_regex(
        r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d( [A-Z+-]{1,5}\d{0,6})?"
    )
)
def test_any_retry_after_is_a_short_time(text: str) -> None:
    assert 0 <= wait_s(text) <= endpoint.MAX_WAIT_S


@pytest.mark.parametrize("header", ["Fri, 01 Jan 2021 00:00:00 GMT", "0"])
def test_a_busy_server_is_asked_again(header: str) -> None:
    answers = iter([503, 429])

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        status = next(answers, 200)
        return models(request) if status == 200 else (status, {"Retry-After": header}, b"")

    with server(answer) as (url, asked):
        EndpointPredictor(url)
        assert len(asked) == 3


MALFORMED = [
    *(
        b"",
        b"{}",
        b"[]",
        b"null",
        b"7",
        b'"models"',
        b"<html>",
        b"{" * 20_000,
        b"\xff\xfe",
        b'{"models": null}',
        b'{"models": {}}',
    ),
    *(
        b'{"models": [7]}',
        b'{"models": [{}]}',
        b'{"models": [{"name": "one"}]}',
        b'{"models": [{"name": "one", "heads": []}]}',
    ),
    b'{"models": [{"name": "one", "heads": {"x": {}}, "canvas": {}}]}',
    b'{"models": [{"name": "one", "heads": {"x": {"type": "nose"}}, "canvas": {"kind": "stretch", "height": 1, "width": 1}}]}',  # noqa: E501
    b'{"models": [{"name": "one", "heads": {"x": {"type": "fcn", "classes": 7}}, "canvas": {"kind": 1, "height": 1, "width": 1}}]}',  # noqa: E501
    b'{"models": [{"name": "one", "heads": {"x": {"type": "fcn", "classes": [], "colours": [1]}}}]}',  # noqa: E501
    b'{"models": []}',
]


@pytest.mark.parametrize("answer", MALFORMED)
def test_a_malformed_list_of_models_is_a_sentence(answer: bytes) -> None:
    with (
        server(lambda _: (200, {}, answer)) as (url, _),
        pytest.raises(ValueError, match=url) as caught,
    ):
        EndpointPredictor(url)
    assert "\n" not in str(caught.value)


PNG_OF_COLOURS = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 40).decode()
PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats()
    | st.sampled_from(["a", "AAAA", PNG_OF_COLOURS]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["boxes", "semantic", "png", "bbox", "score", "class_label", "mask", "keypoints"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(PARTS)
def test_any_answer_is_predictions_or_a_sentence(answer: Any) -> None:
    with _one() as predictor:
        for whole in (
            answer,
            {"boxes": answer, "semantic": answer},
            {"boxes": [answer], "semantic": {"png": answer}},
        ):
            try:
                predictor.read(whole)
            except ValueError as error:
                told = str(error)
                assert "\n" not in told


_made: list[EndpointPredictor] = []


@contextmanager
def _one() -> Iterator[EndpointPredictor]:
    if not _made:
        with server(models) as (url, _):
            _made.append(EndpointPredictor(url))
    yield _made[0]


UNKNOWN_CLASS = b'{"boxes": [{"bbox": [1, 2, 3, 4], "score": 0.5, "class_label": 7}], "semantic": {"png": "AAAA"}}'  # noqa: E501


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"no JSON",
        b'{"boxes": []}',
        b'{"boxes": {}, "semantic": {"png": "!"}}',
        UNKNOWN_CLASS,
    ],
)
def test_a_malformed_answer_is_a_sentence(answer: bytes) -> None:
    with server(asked_for(answer)) as (url, _):
        predictor = EndpointPredictor(url)
        with pytest.raises(ValueError, match=url):
            predictor.predict(images(1))


def test_an_answer_without_an_end_or_cut_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_ANSWER_BYTES", 100_000)
    with (
        server(lambda _: (200, {}, b" " * 1_000_000)) as (url, _),
        pytest.raises(ValueError, match="more than 100,000 bytes"),
    ):
        EndpointPredictor(url)
    with (
        server(lambda _: (200, {"Content-Length": "5000"}, b"{")) as (url, _),
        pytest.raises(ValueError, match="incomplete"),
    ):
        EndpointPredictor(url)


def test_an_error_is_said_on_one_line() -> None:
    with (
        server(lambda _: (500, {}, b"a\nb\r\nc" + b"x" * 10_000)) as (url, _),
        pytest.raises(ValueError, match="answered 500: a b c") as caught,
    ):
        EndpointPredictor(url)
    assert len(str(caught.value)) < 2500
