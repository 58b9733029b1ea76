"""The application that a RayService names answers as ``jobs.serve`` does."""

import urllib.request

import cv2
import numpy as np
import pytest

from mtl_ray.distributed.serve_application import application
from tests.clusters.local_ray import free_ports
from tests.serving.bundles import make_bundle

pytestmark = pytest.mark.jobs


def test_it_answers_behind_serve(ray_session, tmp_path):
    from ray import serve

    make_bundle(tmp_path / "bundle", "labels")
    (port,) = free_ports(1)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(
            application({"models": {"made": str(tmp_path / "bundle")}, "parallel": 1}),
            name="mtl_ray",
            route_prefix="/",
        )
        picture = cv2.imencode(".png", np.full((48, 64, 3), 255, np.uint8))[1].tobytes()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/predictions/made", data=picture, timeout=60
        ) as answer:
            assert "reddish" in answer.read().decode()
    finally:
        serve.shutdown()


@pytest.mark.parametrize(
    ("args", "words"),
    [({}, "names no bundle"), ({"models": {"a": "/b"}, "replica": 2}, "args.replica")],
)
def test_a_mistake_is_one_sentence(args, words):
    with pytest.raises(ValueError, match=words):
        application(args)
