"""Answers and refusals over HTTP, without a server: requests go straight into the application."""

import asyncio
import base64
import io
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from mtl_ray.geometry.masks import area
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.predictor import Predictions
from mtl_ray.serving.app import App
from mtl_ray.serving.asgi import ALONE_HEADER
from mtl_ray.serving.batch_workers import SHORT_S
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.held import Held as Requests
from mtl_ray.serving.service import Service
from tests.serving.masked import MaskedPredictor, ring
from tests.serving.test_held import Clock

Ask = Callable[..., httpx.Response]


def open_app(bundles: dict[str, str], key: str | None = None, **limits: Any) -> App:
    config = ServeConfig(**limits)
    service = Service(
        {name: BundlePredictor(uri, threads=1) for name, uri in bundles.items()}, config
    )
    return App(service, config, parallel=1, api_key=key)


def call(app: App, method: str, path: str, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


@pytest.fixture(scope="module")
def app(bundle: Callable[..., str]) -> Iterator[App]:
    opened = open_app(
        {
            "all": bundle("boxes", "semantic", "labels"),
            "boxes": bundle("boxes"),
            "map": bundle("semantic"),
        },
        max_body_bytes=200_000,
        max_pixels=1_000_000,
    )
    yield opened
    opened.close()


def test_boxes_have_the_form_of_torchserve_in_pixels_of_the_picture(
    app: App, picture: bytes
) -> None:
    answer = call(app, "POST", "/predictions/boxes", content=picture)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    (found,) = answer.json()
    assert found["class_label"] == 1
    assert found["class_name"] == "dog"
    assert found["bbox"] == [16, 8, 48, 40]
    assert found["score"] == pytest.approx(0.9)


def test_masks_in_the_form_that_is_asked_for(bundle: Callable[..., str], picture: bytes) -> None:
    config = ServeConfig()
    app = App(Service({"boxes": MaskedPredictor(bundle("boxes"))}, config), config, parallel=1)
    answers = {
        form: call(app, "POST", f"/predictions/boxes{form}", content=picture).json()[0]
        for form in ("", "?masks=rle", "?masks=polygon", "?masks=none")
    }
    expected = ring([16, 8, 48, 40], 64, 128)
    assert answers[""] == answers["?masks=rle"]
    assert answers[""]["mask"] == {"size": [64, 128], "counts": expected.decode()}
    drawn = np.zeros((64, 128), np.uint8)
    ((ring_of_two_loops),) = answers["?masks=polygon"]["mask"]
    points = np.array(ring_of_two_loops).reshape(-1, 2)
    cv2.fillPoly(drawn, [points.astype(np.int32)], 1)
    assert abs(int(drawn.sum()) - area(expected, 64, 128)) < 0.3 * drawn.sum()
    assert "mask" not in answers["?masks=none"]
    assert answers["?masks=none"]["bbox"] == answers[""]["bbox"]
    refused = call(app, "POST", "/predictions/boxes?masks=png", content=picture)
    assert refused.status_code == 400
    assert "rle, polygon, none" in refused.json()["message"]
    app.close()


def test_threshold_of_the_query(app: App, picture: bytes) -> None:
    assert len(call(app, "POST", "/predictions/boxes?score_thr=0.1", content=picture).json()) == 2
    assert call(app, "POST", "/predictions/boxes?score_thr=0.95", content=picture).json() == []


def test_several_heads_answer_as_one_object_and_one_in_its_plain_form(
    app: App, picture: bytes
) -> None:
    together = call(app, "POST", "/predictions/all", content=picture).json()
    assert list(together) == ["boxes", "semantic", "labels"]
    assert (
        together["labels"]
        == call(app, "POST", "/predictions/all?head=labels", content=picture).json()
    )
    assert [item["class_name"] for item in together["labels"]] == ["reddish", "bluish"]
    assert together["semantic"]["classes"][0] == {
        "class_label": 0,
        "class_name": "red",
        "share": 0.5,
    }


@pytest.mark.parametrize("path", ["/predictions/map", "/predictions/all?head=semantic"])
def test_class_map_is_a_png_unless_json_is_asked_for(app: App, picture: bytes, path: str) -> None:
    plain = call(app, "POST", path, content=picture)
    assert plain.headers["content-type"] == "image/png"
    indices = cv2.imdecode(np.frombuffer(plain.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert indices.shape == (64, 128)
    assert (indices[:, :64] == 0).all()
    assert (indices[:, 64:] == 2).all()
    as_json = call(
        app, "POST", path, content=picture, headers={"Accept": "application/json"}
    ).json()
    assert base64.b64decode(as_json["png"]) == plain.content


def test_models_ping_pages_and_description(app: App) -> None:
    models = {model["name"]: model for model in call(app, "GET", "/models").json()["models"]}
    assert list(models["all"]["heads"]) == ["boxes", "semantic", "labels"]
    heads = models["all"]["heads"].values()
    assert [(head["task"], head["view"]) for head in heads] == [
        ("detection", "boxes"),
        ("segmentation", "map"),
        ("classification", "labels"),
    ]
    assert models["map"]["heads"]["semantic"]["colours"][0] == [200, 40, 40]
    assert call(app, "GET", "/ping").json() == {"status": "Healthy"}
    for page in ("/", "/docs"):
        answer = call(app, "GET", page)
        assert answer.headers["content-type"].startswith("text/html")
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
    described = call(app, "GET", "/openapi.json").json()
    assert "/predictions/{model}" in described["paths"]
    assert {
        "Detections",
        "ClassMap",
        "Labels",
        "ByHead",
        "Several",
        "Predictions",
        "Error",
    } <= described["components"]["schemas"].keys()


def saved(kind: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 3).save(buffer, kind, **options)
    return buffer.getvalue()


PICTURES = {
    "one pixel": saved("PNG", "RGB", (1, 1)),
    "a line": saved("PNG", "L", (20000, 1)),
    "a column": saved("JPEG", "RGB", (1, 20000)),
    "grey": saved("JPEG", "L", (50, 40)),
    "CMYK": saved("JPEG", "CMYK", (50, 40)),
    "RGBA": saved("PNG", "RGBA", (50, 40)),
    "palette": saved("PNG", "P", (50, 40)),
    "16 bits": saved("PNG", "I;16", (50, 40)),
    "one bit": saved("PNG", "1", (50, 40)),
    "GIF": saved("GIF", "P", (50, 40)),
    "WebP": saved("WEBP", "RGB", (50, 40)),
    "TIFF": saved("TIFF", "RGB", (50, 40)),
    "BMP": saved("BMP", "RGB", (50, 40)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_kind_are_answered_in_their_own_pixels(app: App, name: str) -> None:
    answer = call(app, "POST", "/predictions/all?score_thr=0", content=PICTURES[name])
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(PICTURES[name])) as picture:
        assert (
            answer.json()["semantic"]["width"],
            answer.json()["semantic"]["height"],
        ) == picture.size
        assert all(
            0 <= value <= max(picture.size)
            for item in answer.json()["boxes"]
            for value in item["bbox"]
        )


def forged_jpeg() -> bytes:
    """A JPEG whose header says 40000 x 40000."""
    done, data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))
    assert done
    data = bytearray(data.tobytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (40000).to_bytes(2, "big") * 2
    return bytes(data)


def forged_png() -> bytes:
    """A PNG whose header says 40000 x 40000, with a checksum that is right."""
    head = (40000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n"
        + len(head).to_bytes(4, "big")
        + b"IHDR"
        + head
        + zlib.crc32(b"IHDR" + head).to_bytes(4, "big")
    )


def noise(side: int) -> bytes:
    done, data = cv2.imencode(
        ".jpg", np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    )
    assert done
    return data.tobytes()


REFUSED: dict[str, tuple[str, str, bytes | None, dict[str, str], int, str]] = {
    "no body": ("POST", "/predictions/boxes", b"", {}, 400, "empty"),
    "no image": ("POST", "/predictions/boxes", b"hello", {}, 400, "no readable image"),
    "cut short": ("POST", "/predictions/boxes", noise(128)[:-2000], {}, 400, "no readable image"),
    "forged JPEG": ("POST", "/predictions/boxes", forged_jpeg(), {}, 422, "pixels"),
    "forged PNG": ("POST", "/predictions/boxes", forged_png(), {}, 422, "pixels"),
    "too many pixels": ("POST", "/predictions/boxes", b"", {}, 422, "1,000,000"),
    "too large": ("POST", "/predictions/boxes", b"x" * 200_001, {}, 413, "200,000"),
    "another form": (
        "POST",
        "/predictions/boxes",
        b"x",
        {"content-type": "multipart/mixed; boundary=a"},
        415,
        "multipart/form-data",
    ),
    "compressed": (
        "POST",
        "/predictions/boxes",
        b"x",
        {"content-encoding": "gzip"},
        415,
        "compressed ('gzip')",
    ),
    "far too large": (
        "POST",
        "/predictions/boxes",
        b"x",
        {"content-length": "99999999999"},
        413,
        "200,000",
    ),
    "unknown model": ("POST", "/predictions/nothing", b"x", {}, 404, "there is all, boxes, map"),
    "unknown head": ("POST", "/predictions/boxes?head=nose", b"x", {}, 404, "it has boxes"),
    "threshold is a word": (
        "POST",
        "/predictions/boxes?score_thr=high",
        b"x",
        {},
        400,
        "not a number",
    ),
    "threshold is nan": (
        "POST",
        "/predictions/boxes?score_thr=nan",
        b"x",
        {},
        400,
        "between 0 and 1",
    ),
    "threshold is large": (
        "POST",
        "/predictions/boxes?score_thr=50",
        b"x",
        {},
        400,
        "between 0 and 1",
    ),
    "unknown parameter": ("POST", "/predictions/boxes?threshold=0.5", b"x", {}, 400, "score_thr"),
    "garbage query": (
        "POST",
        "/predictions/boxes?%ff&&=;==&%00",
        b"x",
        {},
        400,
        "unknown parameter",
    ),
    "form": (
        "POST",
        "/predictions/boxes",
        b"x",
        {"content-type": "multipart/form-data; boundary=a"},
        400,
        "incomplete",
    ),
    "wrong method": ("GET", "/predictions/boxes", None, {}, 405, "POST"),
    "wrong method of a page": ("DELETE", "/models", None, {}, 405, "GET"),
    "no such path": ("GET", "/prediction", None, {}, 404, "/docs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_sentence_and_the_next_request_is_answered(
    app: App, picture: bytes, name: str
) -> None:
    method, path, body, headers, status, part = REFUSED[name]
    if name == "too many pixels":
        body = cv2.imencode(".png", np.zeros((1001, 1000, 3), np.uint8))[1].tobytes()
    answer = call(app, method, path, content=body, headers=headers)
    assert answer.status_code == status
    said = answer.json()
    assert said["code"] == status
    assert part in said["message"]
    assert "\n" not in said["message"]
    assert "Traceback" not in answer.text
    assert call(app, "POST", "/predictions/boxes", content=picture).status_code == 200
    assert app.limits.held.count == 0


def test_key_opens_models_and_predictions(bundle: Callable[..., str], picture: bytes) -> None:
    app = open_app({"boxes": bundle("boxes")}, key="secret")
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "secret"},
        {"Authorization": "Bearer s\u00e9cret"},
    ):
        headers = {name: value.encode() for name, value in headers.items()}
        refused = call(app, "POST", "/predictions/boxes", content=picture, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert call(app, "GET", "/models", headers=headers).status_code == 401
    assert call(app, "GET", "/ping").status_code == 200
    assert call(app, "GET", "/").status_code == 200
    right = {"Authorization": "Bearer secret"}
    assert (
        call(app, "POST", "/predictions/boxes", content=picture, headers=right).status_code == 200
    )
    app.close()


class Held:
    """A predictor that answers when it is told to, and counts how many pictures came together."""

    def __init__(self, inner: BundlePredictor) -> None:
        self.heads, self.vocabulary, self.canvas = inner.heads, inner.vocabulary, inner.canvas
        self.inner, self.go, self.begun, self.batches = (
            inner,
            threading.Event(),
            threading.Event(),
            [],
        )

    def predict(self, images: list[Any]) -> list[Any]:
        self.batches.append(len(images))
        self.begun.set()
        assert self.go.wait(20)
        return self.inner.predict(images)


def held_app(uri: str, **limits: Any) -> tuple[App, Held]:
    config = ServeConfig(**limits)
    held = Held(BundlePredictor(uri, threads=1))
    return App(Service({"boxes": held}, config), config, parallel=1), held


def test_more_than_may_wait_are_sent_away_and_those_that_waited_go_together(
    bundle: Callable[..., str], picture: bytes
) -> None:
    app, held = held_app(bundle("boxes"), max_queued=3, max_batch=8)

    async def crowd() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            first = asyncio.create_task(client.post("/predictions/boxes", content=picture))
            assert await asyncio.to_thread(held.begun.wait, 20)
            waiting = [
                asyncio.create_task(client.post("/predictions/boxes", content=picture))
                for _ in range(3)
            ]
            while app.limits.held.count < 4:
                await asyncio.sleep(0)
            turned_away = await client.post("/predictions/boxes", content=picture)
            held.go.set()
            return [turned_away, await first, *await asyncio.gather(*waiting)]

    turned_away, *answered = asyncio.run(crowd())
    assert turned_away.status_code == 503
    assert turned_away.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answered] == [200] * 4
    assert held.batches == [1, 3]
    app.close()


class Threaded(BundlePredictor):
    """A predictor that notes in which threads it was called."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri, threads=1)
        self.threads: list[str] = []

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        self.threads.append(threading.current_thread().name)
        return super().predict(raws)


def test_a_lone_request_is_answered_without_a_thread(
    bundle: Callable[..., str], picture: bytes
) -> None:
    predictor, config = Threaded(bundle("boxes")), ServeConfig()
    app = App(Service({"boxes": predictor}, config), config, parallel=1)
    served, app.limits.held = app.limits.current, Requests(Clock())
    alone = {ALONE_HEADER: "?1"}

    def ask(headers: dict[str, str], path: str = "/predictions/boxes") -> httpx.Response:
        answer = call(app, "POST", path, content=picture, headers=headers)
        assert answer.status_code == 200
        while served.workers["boxes"]._busy:
            time.sleep(0.001)
        return answer

    threaded = ask(alone)
    assert predictor.threads == ["boxes-0"], "how long it takes is not known yet"
    served.workers["boxes"]._last_s = 0
    answered = ask(alone)
    assert predictor.threads[1:] == ["MainThread"]
    assert answered.content == threaded.content
    served.workers["boxes"]._last_s = 0
    ask({})
    served.workers["boxes"]._last_s = 0
    ask(alone)
    assert predictor.threads[2:] == ["boxes-0"] * 2, "two have met"
    app.limits.held = Requests(Clock())
    served.workers["boxes"]._last_s = 2 * SHORT_S
    ask(alone)
    assert predictor.threads[4:] == ["boxes-0"], "a long call would hold up the event loop"
    served.workers["boxes"]._last_s = 0
    predictor.slide = cast(Any, "many windows")
    assert not served.is_short("boxes"), "the time depends on the size of the image"
    predictor.slide = None
    broken = call(app, "POST", "/predictions/boxes", content=b"x", headers=alone)
    assert broken.status_code == 400
    metrics = call(app, "GET", "/metrics").text
    assert 'mtl_ray_alone_total{model="boxes"} 2' in metrics
    assert 'mtl_ray_requests_total{model="boxes",status="200"} 5' in metrics
    counted = call(app, "GET", "/models/boxes/statistics").json()
    assert counted["requests"]["samples"] == 5
    app.close()


def test_an_answer_that_takes_too_long_is_given_up(
    bundle: Callable[..., str], picture: bytes
) -> None:
    app, held = held_app(bundle("boxes"), timeout_s=0.2)
    late = call(app, "POST", "/predictions/boxes", content=picture)
    assert late.status_code == 504
    assert app.limits.held.count == 0
    held.go.set()  # its thread now finds that nobody waits for the answer
    app.limits.current.config = ServeConfig()
    assert call(app, "POST", "/predictions/boxes", content=picture).status_code == 200
    app.close()


def test_a_failure_inside_is_not_shown(
    bundle: Callable[..., str], picture: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app, held = held_app(bundle("boxes"))
    held.predict = lambda images: 1 / 0
    answer = call(app, "POST", "/predictions/boxes", content=picture)
    assert answer.status_code == 500
    assert "division" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    app.close()
