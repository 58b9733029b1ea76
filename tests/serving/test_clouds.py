"""Point clouds over HTTP, without a server: each cloud has an answer with its frame, labels and
scores, and what is wrong with it is one sentence.
"""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.clouds import MiddlePredictor, cloud_canvas
from tests.serving.test_app import call

CLOUD = np.random.default_rng(7).uniform(1, 30, (50, 4)).astype("<f4")
CLOUD[:, 3] /= 30
BODY = CLOUD.tobytes()
LIMIT = 4_000
"""Numbers."""


@pytest.fixture(scope="module")
def model() -> MiddlePredictor:
    return MiddlePredictor()


@pytest.fixture(scope="module")
def timed() -> MiddlePredictor:
    return MiddlePredictor(cloud_canvas("x", "y", "z", "intensity", "time"), velocity=True)


@pytest.fixture(scope="module")
def app(model: MiddlePredictor, timed: MiddlePredictor) -> Iterator[App]:
    config = ServeConfig(max_body_bytes=40_000, max_pixels=LIMIT, max_images=3)
    opened = App(Service({"kitti": model, "timed": timed}, config), config, parallel=1)
    yield opened
    opened.close()


def post(app: App, name: str = "kitti", **options: Any) -> httpx.Response:
    return call(app, "POST", f"/predictions/{name}", **options)


def npy(points: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, points)
    return file.getvalue()


def test_an_answer_has_frame_labels_names_and_scores(app: App) -> None:
    answer = post(app, content=BODY).json()
    assert answer["frame"] == "0"
    (car,) = answer["prediction"]
    assert (car["class_label"], car["class_name"]) == (1, "Car")
    assert car["score"] == pytest.approx(0.9)
    assert car["box_3d"][:3] == pytest.approx(CLOUD[:, :3].mean(axis=0).tolist(), rel=1e-5)
    assert "velocity" not in car
    both = post(app, content=BODY, params={"score_thr": "0.1"}).json()["prediction"]
    assert [each["class_name"] for each in both] == ["Car", "Pedestrian"]


SAME: dict[str, tuple[dict[str, Any], str]] = {
    "npy": ({"content": npy(CLOUD)}, "0"),
    "said": ({"content": BODY, "params": {"features": "4"}}, "0"),
    "named": ({"content": BODY, "params": {"features": "x,y,z,intensity"}}, "0"),
    "form": ({"files": {"points": ("a/000008.bin", BODY)}}, "000008.bin"),
    "form of Windows": ({"files": {"points": ("C:\\d\\8.bin", BODY)}}, "8.bin"),
    "form in UTF-8": ({"files": {"points": ("rue é.bin", BODY)}}, "rue é.bin"),
    "form of npy": ({"files": {"any": ("8.npy", npy(CLOUD))}}, "8.npy"),
    "json": ({"json": {"points": base64.b64encode(BODY).decode()}}, "0"),
    "json b64": ({"json": {"points": {"b64": base64.b64encode(BODY).decode()}}}, "0"),
}


@pytest.mark.parametrize("name", SAME)
def test_however_a_cloud_is_sent_the_answer_is_the_same(app: App, name: str) -> None:
    options, frame = SAME[name]
    answer = post(app, **options)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {**post(app, content=BODY).json(), "frame": frame}


def test_several_clouds_give_as_many_answers(app: App) -> None:
    """The ids are the names of the files, and without them the places; so is that of an error."""
    other = CLOUD[:20].tobytes()
    answers = post(
        app, files=[("p", ("a.bin", BODY)), ("p", ("b.bin", other)), ("p", ("c.bin", BODY[:-2]))]
    ).json()
    assert [each["frame"] for each in answers] == ["a.bin", "b.bin", "c.bin"]
    assert answers[0]["prediction"] == post(app, content=BODY).json()["prediction"]
    assert answers[1]["prediction"] == post(app, content=other).json()["prediction"]
    assert answers[2]["code"] == 400
    texts = [base64.b64encode(each).decode() for each in (other, BODY)]
    instances = post(app, json={"instances": [{"b64": each} for each in texts]}).json()
    assert [each["frame"] for each in instances["predictions"]] == ["0", "1"]
    assert instances["predictions"][1]["prediction"] == answers[0]["prediction"]


def test_nothing_and_one_point_are_clouds(app: App) -> None:
    for empty in (b"", npy(np.zeros((0, 4), np.float32))):
        assert post(app, content=empty).json() == {"frame": "0", "prediction": []}
    assert post(app, files={"p": ("e.bin", b"")}).json() == {"frame": "e.bin", "prediction": []}
    assert post(app, json={"points": ""}).json() == {"frame": "0", "prediction": []}
    assert len(post(app, content=BODY[:16]).json()["prediction"]) == 1


def with_value(value: float) -> bytes:
    points = CLOUD.copy()
    points[3, 1] = value
    return points.tobytes()


REFUSED: dict[str, tuple[int, str, dict[str, Any]]] = {
    "cut": (400, "no multiple of 4 float32 numbers", {"content": BODY[:-3]}),
    "another count": (400, "option features", {"content": CLOUD[:3, :3].tobytes()}),
    "NaN": (400, "1 of 50 points have a NaN", {"content": with_value(np.nan)}),
    "infinite": (400, "1 of 50 points have a NaN or", {"content": with_value(np.inf)}),
    "wrong features": (
        400,
        "has 4 numbers, not 5",
        {"content": npy(CLOUD), "params": {"features": "5"}},
    ),
    "no number": (400, "features is 'many'", {"content": BODY, "params": {"features": "many"}}),
    "two": (400, "3 to 32 numbers", {"content": BODY, "params": {"features": "2"}}),
    "no z": (400, "features is 'x,y,i'", {"content": BODY, "params": {"features": "x,y,i"}}),
    "unknown option": (
        400,
        "unknown parameter 'colour'",
        {"content": BODY, "params": {"colour": 1}},
    ),
    "option in the form": (
        400,
        "features belongs in the query",
        {"files": {"p": ("a.bin", BODY)}, "data": {"features": "4"}},
    ),
    "many numbers": (
        422,
        "more than the 4,000 numbers allowed",
        {"content": bytes(4 * LIMIT + 16)},
    ),
    "many bytes": (413, "larger than the 40,000 bytes", {"content": bytes(40_004)}),
    "many clouds": (413, "at most 3", {"files": [("p", (f"{i}.bin", BODY)) for i in range(4)]}),
    "an image": (400, "point cloud", {"content": b"\x89PNG\r\n\x1a\n" + bytes(7)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_sentence(app: App, name: str) -> None:
    status, message, options = REFUSED[name]
    answer = post(app, **options)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["message"]
    assert "\n" not in answer.json()["message"]


def test_fifty_million_points_are_refused_before_they_arrive(app: App) -> None:
    """The length alone is enough; not a byte of the body is sent."""

    async def never() -> Any:
        raise AssertionError("the body is read")
        yield b""

    answer = post(app, content=never(), headers={"content-length": str(50_000_000 * 16)})
    assert answer.status_code == 413


def test_the_header_of_a_file_claims_too_much(app: App) -> None:
    head = npy(np.zeros((1, 4), np.float32)).replace(b"(1, 4)", b"(50000000, 4)")
    assert post(app, content=head).status_code in (400, 422)


def test_the_features_of_a_network_with_time(app: App, timed: MiddlePredictor) -> None:
    """A file without names has what the network reads; rings in place of seconds are not taken
    for them.
    """
    lags = np.column_stack([CLOUD, np.linspace(0, 0.5, 50)]).astype("<f4")
    rings = np.column_stack([CLOUD, np.arange(50) % 32]).astype("<f4")
    for body, query, names in (
        (lags, {}, ("x", "y", "z", "intensity", "time")),
        (lags, {"features": "5"}, ("x", "y", "z", "intensity", "time")),
        (rings, {}, ("x", "y", "z", "intensity", "ring")),
        (rings, {"features": "5"}, ("x", "y", "z", "intensity", "ring")),
        (rings, {"features": "x,y,z,intensity,time"}, ("x", "y", "z", "intensity", "time")),
        (CLOUD, {"features": "4"}, ("x", "y", "z", "intensity")),
    ):
        answer = post(app, "timed", content=body.tobytes(), params=query)
        assert answer.status_code == 200, answer.text
        assert timed.clouds[-1].features == names
    assert answer.json()["prediction"][0]["velocity"] == [1.0, 1.0]


def test_another_count_than_the_network_reads_is_refused_unless_it_is_stated(
    app: App, timed: MiddlePredictor
) -> None:
    """Five numbers a point, read as four, are as many bytes as a cloud of a quarter more points."""
    rng = np.random.default_rng(3)
    columns = [rng.normal(0, 20, 400), rng.normal(0, 20, 400), rng.uniform(-2, 1, 400)]
    points = np.stack([*columns, rng.uniform(0, 255, 400), rng.integers(0, 32, 400)], axis=1)
    body = points.astype("<f4").tobytes()
    answer = post(app, content=body)
    assert answer.status_code == 400
    assert "with 4 numbers a point the file is no cloud, but with 5" in answer.json()["message"]
    for query in ({"features": "4"}, {"features": "5"}):
        assert post(app, content=body, params=query).status_code == 200
    assert post(app, "timed", content=body).status_code == 200


def test_models_and_openapi_tell_of_clouds(app: App) -> None:
    entry = call(app, "GET", "/models").json()["models"][0]
    assert entry["input"]["name"] == "points"
    assert entry["input"]["noun"] == "point cloud"
    assert "features" in entry["input"]["parameters"]
    assert entry["heads"]["objects"]["view"] == "boxes_3d"
    assert entry["canvas"]["features"] == ["x", "y", "z", "intensity"]
    document = call(app, "GET", "/openapi.json").json()
    operation = document["paths"]["/predictions/{model}"]["post"]
    assert "features" in [each["name"] for each in operation["parameters"]]
    frame = document["components"]["schemas"]["OfFrame"]
    assert frame["required"] == ["frame", "prediction"]


def test_a_real_frame(app: App, shared_data: Path) -> None:
    folder = shared_data / "lidar_kitti_samples" / "training" / "velodyne_reduced"
    data = (folder / "000008.bin").read_bytes()
    config = ServeConfig()
    model = MiddlePredictor()
    opened = App(Service({"kitti": model}, config), config, parallel=1)
    answer = json.loads(post(opened, content=data).content)
    assert len(model.clouds[0].points) == 17_238
    assert answer["prediction"][0]["class_name"] == "Car"
    opened.close()


def test_a_name_in_a_form_must_not_promise_what_the_file_is_not(app: App) -> None:
    good = post(app, files={"a": ("scan.bin", BODY), "b": ("scan.pcd.bin", BODY)})
    assert [each["frame"] for each in good.json()] == ["scan.bin", "scan.pcd.bin"]
    for name in ("scan.pcd", "scan.npy", "SCAN.PLY"):
        reply = post(app, files={"a": (name, BODY)})
        assert reply.status_code == 400
        assert "it does not begin as such a file does" in reply.text
