"""A served model as a predictor: images go out as PNG over HTTP, answers come back as Predictions."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.experiment import AnyHead, task_part
from mtl_ray.geometry.placement import PlacementRule
from mtl_ray.inference.heads import head_of
from mtl_ray.inference.predictor import Predictions
from mtl_ray.samples import Annotation, Vocabulary

BUSY = (429, 503)
"""What a server answers that has too much to do at the moment; it is asked again after the time that it names."""
ATTEMPTS = 5
MAX_WAIT_S = 30.0


def read_api_key(variable: str | None) -> str | None:
    """The key that stands in an environment variable, so that it is in no command line.

    Raises:
        ValueError: if a variable is named and not set.
    """
    if variable is not None and not os.environ.get(variable):
        raise ValueError(f"the environment variable {variable}, which should hold the API key, is not set")
    return None if variable is None else os.environ[variable]


class EndpointPredictor:
    """Asks ``GET /models`` what is served, then ``POST /predictions/MODEL`` for each image.

    Args:
        url: ``http://HOST:PORT/predictions/MODEL``, or ``http://HOST:PORT`` where one model is served.
        api_key: sent as ``Authorization: Bearer``.
        timeout_s: for one answer.
        parallel: requests under way at the same time.

    Raises:
        ValueError: if nothing answers there, or not in this way, or too busy again and again.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, parallel: int = 4) -> None:
        self.headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self.timeout_s = timeout_s
        self.parallel = parallel
        base, _, name = url.rstrip("/").partition("/predictions/")
        served = json.loads(self._ask(f"{base}/models"))["models"]
        model = _choose(served, name, base)
        self.url = f"{base}/predictions/{urllib.parse.quote(model['name'])}"
        self.heads: Mapping[str, Any] = {head: head_of(described["type"]) for head, described in model["heads"].items()}
        self.vocabulary = _vocabulary(model["heads"], self.heads)
        canvas = model["canvas"]
        self.canvas = PlacementRule(kind=canvas["kind"], height=canvas["height"], width=canvas["width"])

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        """See ``Predictor``; PNG loses nothing, so the server sees the same pixels."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._predict, images))

    def _predict(self, image: NDArray[np.uint8]) -> Predictions:
        done, body = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done
        return self.read(self.answer(bytes(body), score_threshold=0.0))

    def answer(self, image: bytes, score_threshold: float) -> Any:
        """The JSON that is answered to an encoded image.

        Raises:
            ValueError: with what the server said, if it was not an answer.
        """
        return json.loads(self._ask(f"{self.url}?score_thr={score_threshold:g}", image))

    def read(self, answer: Any) -> Predictions:
        """Predictions of an answer; one of a model with a single head is that head's in its plain form."""
        by_head = {next(iter(self.heads)): answer} if len(self.heads) == 1 else answer
        return {name: task_part(head, "answer").read_answer(by_head[name], self.vocabulary, head) for name, head in self.heads.items()}

    def _ask(self, url: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, data=body, headers=self.headers)
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._send(request)
                except urllib.error.HTTPError as error:
                    if error.code not in BUSY:
                        raise
                    time.sleep(min(float(error.headers.get("Retry-After", 1)), MAX_WAIT_S))
            return self._send(request)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{url} answered {error.code}: {error.read(2000).decode(errors='replace')}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise ValueError(f"nothing answers at {url}: {getattr(error, 'reason', error)}") from error

    def _send(self, request: urllib.request.Request) -> bytes:
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            return bytes(response.read())


def _choose(served: Sequence[Mapping[str, Any]], name: str, base: str) -> Mapping[str, Any]:
    names = [str(model["name"]) for model in served]
    if not name and len(names) != 1:
        raise ValueError(f"say which model: {base}/predictions/MODEL, with MODEL one of {', '.join(names)}")
    for model in served:
        if not name or model["name"] == urllib.parse.unquote(name):
            return model
    raise ValueError(f"{base} does not serve {name!r}, but {', '.join(names)}")


def _vocabulary(described: Mapping[str, Mapping[str, Any]], heads: Mapping[str, AnyHead]) -> Vocabulary:
    classes: dict[Annotation, tuple[str, ...]] = {}
    colours: dict[Annotation, tuple[tuple[int, int, int], ...]] = {}
    for name, entry in described.items():
        kind: Any = heads[name].annotation
        classes[kind] = tuple(entry["classes"])
        if entry.get("colours"):
            colours[kind] = tuple((r, g, b) for r, g, b in entry["colours"])
    return Vocabulary(classes=classes, colours=colours, exclusive_labels=any(head.type == "linear" for head in heads.values()))
