"""A checkpoint, its bundles and its endpoint say the same of any image."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import torch

from mtl_ray import storage
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint
from mtl_ray.inference.endpoint import EndpointPredictor, read_api_key
from mtl_ray.inference.predictor import Predictions, Predictor, open_predictor
from mtl_ray.inference.signature import read_signature
from mtl_ray.inputs.decode import decode_image
from mtl_ray.vocabulary import vocabulary_from_json
from tests.inference.tiny import HEADS, VOCABULARY, images, write_checkpoint


def differ(ours: Predictions, theirs: Predictions) -> float:
    """The largest difference of any score, or infinity if something is not there."""
    if ours.keys() != theirs.keys() or ours["boxes"].scores.shape != theirs["boxes"].scores.shape:
        return float("inf")
    if ours["semantic"].classes.shape != theirs["semantic"].classes.shape:
        return float("inf")
    parts = [
        np.abs(ours["labels"].scores - theirs["labels"].scores).max(),
        np.abs(np.sort(ours["boxes"].scores) - np.sort(theirs["boxes"].scores)).max(initial=0),
        float((ours["semantic"].classes != theirs["semantic"].classes).mean() > 0.01),
    ]
    return float(max(parts))


def test_any_size_and_any_number_of_images(checkpoint: str) -> None:
    predictor = open_checkpoint(checkpoint)
    assert list(predictor.heads) == ["boxes", "semantic", "labels"]
    assert predictor.predict([]) == []
    found = predictor.predict(images())
    for image, predictions in zip(images(), found, strict=True):
        assert predictions["semantic"].classes.shape == image.shape[:2]
        assert predictions["labels"].scores.sum() == pytest.approx(1)
        boxes = predictions["boxes"].boxes_xyxy
        assert len(boxes) <= 20
        assert (boxes >= 0).all()
        assert (boxes <= np.array([image.shape[1], image.shape[0]] * 2)).all()
        alone = predictor.predict([image])[0]
        assert differ(alone, predictions) < 1e-5


def test_predicting_leaves_the_model_as_it_was(checkpoint: str) -> None:
    predictor = open_checkpoint(checkpoint)
    predictor.model.train()
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    predictor.predict(images(2))
    assert predictor.model.training
    assert all(
        torch.equal(before[name], value) for name, value in predictor.model.state_dict().items()
    )


def test_a_bundle_says_what_its_checkpoint_says(checkpoint: str, bundle: str) -> None:
    ours, theirs = open_predictor(checkpoint), open_predictor(bundle, threads=1)
    assert isinstance(theirs, BundlePredictor)
    assert (theirs.vocabulary, theirs.canvas) == (ours.vocabulary, ours.canvas)
    assert dict(theirs.heads) == dict(ours.heads)
    pairs = list(zip(ours.predict(images()), theirs.predict(images()), strict=True))
    assert max(differ(first, second) for first, second in pairs) < 1e-4
    assert differ(pairs[1][0], pairs[2][1]) > 1e-4  # of another image it says something else


def test_the_averaged_weights_are_what_predicts(checkpoint: str, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", HEADS, seed=1)
    average = (other / "model.safetensors").read_bytes()
    both = write_checkpoint(tmp_path / "both", HEADS, seed=0, ema__safetensors=average)
    image = images(2)[1:]
    plain, averaged, wanted = (
        open_checkpoint(str(uri)).predict(image)[0] for uri in (checkpoint, both, other)
    )
    assert differ(averaged, wanted) == 0
    assert differ(averaged, plain) > 1e-3


def test_weights_of_another_network_are_refused(checkpoint: str, tmp_path: Path) -> None:
    heads = HEADS | {"labels": {"type": "linear", "levels": ["G5"]}, "more": {"type": "multilabel"}}
    weights = Path(checkpoint, "model.safetensors").read_bytes()
    mixed = write_checkpoint(tmp_path / "mixed", heads, ema__safetensors=weights)
    with pytest.raises(ValueError, match="do not fit"):
        open_checkpoint(str(mixed))


def test_a_run_is_its_best_checkpoint_or_its_last(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (5, 10):
        write_checkpoint(run / "checkpoints" / f"step-{step:08d}", HEADS, seed=step)
    (run / "checkpoints" / "step-00000020").mkdir()  # cut short: no manifest
    last = str(run / "checkpoints" / "step-00000010")
    assert find_checkpoint(str(run)) == last
    content = {
        "checkpoint": "checkpoints/step-00000005",
        "step": 5,
        "metric": "labels/top1",
        "value": 0.5,
        "metrics": {"labels/top1": 0.5, "boxes/mAP": None},
    }
    (run / "best.json").write_text(json.dumps(content))
    best = str(run / "checkpoints" / "step-00000005")
    assert (find_checkpoint(str(run)), find_checkpoint(str(run), "last")) == (best, last)
    image = images(2)[1:]
    assert (
        differ(open_predictor(str(run)).predict(image)[0], open_predictor(best).predict(image)[0])
        == 0
    )


def test_what_cannot_be_opened_is_said(tmp_path: Path, checkpoint: str) -> None:
    with pytest.raises(FileNotFoundError, match="nothing at"):
        open_predictor(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="neither"):
        open_predictor(str(tmp_path))
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(ValueError, match="no whole checkpoint"):
        open_predictor(str(tmp_path / "run"))
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in Path(checkpoint).iterdir():
        (cut / path.name).write_bytes(path.read_bytes())
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        open_predictor(str(cut))


def test_a_signature_comes_back_and_a_wrong_one_is_refused(bundle: str) -> None:
    data = storage.read(storage.join(bundle, "signature.json"))
    signature = read_signature(data)
    assert read_signature(signature.to_json()) == signature
    assert vocabulary_from_json(json.loads(data)["vocabulary"]) == VOCABULARY
    content = json.loads(data)
    for wrong in (
        content | {"version": 3},
        content | {"colour": 1},
        {name: value for name, value in content.items() if name != "canvas"},
    ):
        with pytest.raises(ValueError, match=r"signature\.json"):
            read_signature(json.dumps(wrong).encode())


def described(name: str, predictor: Predictor) -> dict[str, Any]:
    heads = {
        head: {
            "type": config.type,
            "task": config.task.name,
            "classes": list(predictor.vocabulary.classes[config.annotation]),
            "colours": [],
        }
        for head, config in predictor.heads.items()
    }
    return {
        "name": name,
        "heads": heads,
        "canvas": {"height": 64, "width": 96, "kind": "letterbox"},
    }


def respond(predictor: Predictor, body: bytes, threshold: float) -> tuple[int, Any]:
    try:
        predictions = predictor.predict([decode_image(body)])[0]
    except ValueError as error:
        return 400, {"message": str(error)}
    answers = {
        name: head.task.to_response(predictions[name], predictor.vocabulary, threshold)
        for name, head in predictor.heads.items()
    }
    return 200, answers if len(answers) > 1 else next(iter(answers.values()))


@pytest.fixture(scope="module")
def served(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is busy at first, then answers as ours does."""
    single = write_checkpoint(
        tmp_path_factory.mktemp("single") / "checkpoint", {"semantic": HEADS["semantic"]}
    )
    models = {"three": open_checkpoint(checkpoint), "map": open_checkpoint(str(single))}
    busy = ["once"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(
                200, {"models": [described(name, predictor) for name, predictor in models.items()]}
            )

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            url = urlsplit(self.path)
            threshold = float(dict(parse_qsl(url.query))["score_thr"])
            self._send(
                *(
                    (503, {})
                    if busy and busy.pop()
                    else respond(models[url.path.rpartition("/")[2]], body, threshold)
                )
            )

        def _send(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_endpoint_says_what_its_checkpoint_says(served: str, checkpoint: str) -> None:
    ours, theirs = open_checkpoint(checkpoint), open_predictor(f"{served}/predictions/three")
    assert isinstance(theirs, EndpointPredictor)
    assert theirs.vocabulary.classes == VOCABULARY.classes
    assert {name: head.type for name, head in theirs.heads.items()} == {
        "boxes": "retinanet",
        "semantic": "fcn",
        "labels": "linear",
    }
    for first, second in zip(ours.predict(images(4)), theirs.predict(images(4)), strict=True):
        assert differ(first, second) < 1e-5
        np.testing.assert_allclose(first["boxes"].boxes_xyxy, second["boxes"].boxes_xyxy, atol=1e-3)


def test_an_endpoint_of_one_head_answers_in_its_plain_form(served: str) -> None:
    predictor: Predictor = EndpointPredictor(f"{served}/predictions/map")
    assert predictor.predict(images(2))[1]["semantic"].classes.shape == images(2)[1].shape[:2]


def test_what_an_endpoint_does_not_serve_is_said(served: str) -> None:
    with pytest.raises(ValueError, match="three, map"):
        EndpointPredictor(served)
    with pytest.raises(ValueError, match="does not serve 'four'"):
        EndpointPredictor(f"{served}/predictions/four")
    with pytest.raises(ValueError, match="answered 400"):
        EndpointPredictor(f"{served}/predictions/three").answer(b"no picture", 0.5)
    with pytest.raises(ValueError, match="nothing answers"):
        EndpointPredictor("http://127.0.0.1:9/predictions/x")


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret")
    assert (read_api_key(None), read_api_key("TEST_KEY")) == (None, "secret")
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ValueError, match="TEST_KEY"):
        read_api_key("TEST_KEY")


def test_bundles_and_endpoints_need_no_torch() -> None:
    modules = (
        "sys, mtl_ray.inference.bundle, mtl_ray.inference.endpoint, "
        "mtl_ray.inference.predictor, mtl_ray.inference.files"
    )
    code = f"import {modules}; print('torch' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.split() == ["False", "False"]
