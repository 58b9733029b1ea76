"""A served model as a predictor: data is sent as files over HTTP (images as PNG), answers are
decoded into predictions.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO, Any

from pydantic import TypeAdapter

from mtl_ray.config.extend import extended
from mtl_ray.inference.predictor import Predictions, head_of
from mtl_ray.inference.stored_config import InputConfig
from mtl_ray.inputs.input import PREDICTION, AnyCanvas
from mtl_ray.samples import Annotation, Vocabulary
from mtl_ray.tasks.head_classes import head_vocabulary
from mtl_ray.tasks.task import HeadKind

BUSY = (429, 503)
"""Statuses of a busy server; the request is sent again after the time that it states."""
ATTEMPTS = 5
MAX_WAIT_S = 30.0
MAX_ANSWER_BYTES = 256_000_000
"""A longer answer is refused before it is read completely."""


def read_api_key(variable: str | None) -> str | None:
    """The API key in an environment variable, so that it is on no command line.

    Raises:
        ValueError: if the variable is not set.
    """
    if variable is not None and not os.environ.get(variable):
        raise ValueError(
            f"the environment variable {variable}, which should hold the API key, is not set"
        )
    return None if variable is None else os.environ[variable]


class EndpointPredictor:
    """Requests ``GET /models`` once, then ``POST /predictions/MODEL`` for each sample.

    Args:
        url: ``http://HOST:PORT/predictions/MODEL``, with ``/versions/VERSION`` for one version of
            it, or ``http://HOST:PORT`` if one model is served.
        api_key: sent as ``Authorization: Bearer``.
        timeout_s: for one answer.
        parallel: concurrent requests.

    Raises:
        ValueError: if no server of this project answers there, or it stays busy.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, parallel: int = 4
    ) -> None:
        self.headers = {"Accept": "application/json"} | (
            {"Authorization": f"Bearer {api_key}"} if api_key else {}
        )
        self.timeout_s = timeout_s
        self.parallel = parallel
        self._opener = urllib.request.build_opener(_SameOrigin())
        base, _, place = url.rstrip("/").partition("/predictions/")
        name, named, version = place.partition("/versions/")
        answer = self._ask(f"{base}/models")
        try:
            served = [(str(model["name"]), model) for model in json.loads(answer)["models"]]
            model_name, model = _choose(served, name, base)
            self.url = f"{base}/predictions/{urllib.parse.quote(model_name)}"
            if named:
                self.url += f"/versions/{urllib.parse.quote(version)}"
            self.plugins = tuple(map(str, model.get("plugins", ())))
            self.heads, self.vocabulary = _described(model["heads"], self.plugins)
            self.canvas = _canvas(model, self.plugins)
        except _ChoiceError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{base}/models does not answer as a server of this project does: "
                f"{_reason_of(error)}"
            ) from None

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """See ``Predictor``; the files are lossless, so the server gets the same data."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._predict, raws))

    def _predict(self, raw: Any) -> Predictions:
        kind = self.canvas.input
        options = kind.encoded_options(raw)
        answer = self.answer(kind.encode_file(raw), score_threshold=0.0, options=options)
        return self.read(answer, kind.size(raw))

    def answer(
        self, file: bytes, score_threshold: float, options: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON answer to a file of the input.

        Args:
            file: its bytes.
            score_threshold: objects with a lower score are left out.
            options: how the file is read (``Input.file_options``).

        Raises:
            ValueError: with the server's message, if it did not predict.
        """
        query = {"score_thr": f"{score_threshold:g}", **(options or {})}
        answer = self._ask(f"{self.url}?{urllib.parse.urlencode(query)}", file)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise ValueError(f"{self.url} did not answer JSON, but {answer[:60]!r}") from None

    def read(self, answer: Any, size: Mapping[str, int] | None = None) -> Predictions:
        """The predictions of an answer. The answer of a model with one head is not keyed by head.

        Args:
            answer: the JSON.
            size: of the data, as ``Input.size`` gives it, if it is known.

        Raises:
            ValueError: if it is no answer of these heads.
        """
        try:
            if self.canvas.input.named_answers:
                answer = answer[PREDICTION]
            by_head = {next(iter(self.heads)): answer} if len(self.heads) == 1 else answer
            return {
                name: head.task.from_response(
                    by_head[name], head_vocabulary(head, self.vocabulary), head, size
                )
                for name, head in self.heads.items()
            }
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{self.url} does not answer as its heads {', '.join(self.heads)} do: "
                f"{_reason_of(error)}"
            ) from None

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
                    time.sleep(wait_s(error.headers.get("Retry-After")))
            return self._send(request)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{url} answered {error.code}: {_start_of(error)}") from None
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(
                f"nothing answers at {url}: {_reason_of(getattr(error, 'reason', error))}"
            ) from None

    def _send(self, request: urllib.request.Request) -> bytes:
        with self._opener.open(request, timeout=self.timeout_s) as response:
            answer = bytes(response.read(MAX_ANSWER_BYTES + 1))
            declared = response.headers.get("Content-Length", "")
        if len(answer) > MAX_ANSWER_BYTES:
            raise ValueError(f"{request.full_url} answered more than {MAX_ANSWER_BYTES:,} bytes")
        if declared.isdigit() and len(answer) < int(declared):
            raise ConnectionError("the answer was incomplete")
        return answer


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows a redirect of a GET to the same scheme, host and port only: no other server may get
    the key.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if _origin(newurl) != _origin(req.full_url):
            there = "://".join(urllib.parse.urlsplit(newurl)[:2])
            raise ValueError(
                f"{req.full_url} redirects to another server, {there}; name that URL if it is the "
                "right one"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def wait_s(declared: str | None) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, section 10.2.3): a number or a date; 1
    if it is neither.
    """
    seconds = 1.0
    text = (declared or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    elif text:
        try:
            when = parsedate_to_datetime(text)
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            pass  # neither
    return min(max(seconds, 0.0), MAX_WAIT_S)


def _start_of(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(2000).decode(errors="replace").split())
    except (OSError, http.client.HTTPException):
        return str(error.reason)


def _reason_of(error: object) -> str:
    """The message of an error on one line; a missing key by its name."""
    text = (
        f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
    )
    return " ".join(text.split())[:300]


class _ChoiceError(ValueError):
    """The server answers, but does not serve the model."""


def _choose(
    served: Sequence[tuple[str, Mapping[str, Any]]], name: str, base: str
) -> tuple[str, Mapping[str, Any]]:
    names = ", ".join(each for each, _ in served) or "nothing"
    if not name and len(served) != 1:
        raise _ChoiceError(f"name a model: {base}/predictions/MODEL, with MODEL one of {names}")
    for each, model in served:
        if not name or each == urllib.parse.unquote(name):
            return each, model
    raise _ChoiceError(f"{base} does not serve {name!r}, but {names}")


def _canvas(model: Mapping[str, Any], plugins: tuple[str, ...]) -> AnyCanvas:
    return (
        TypeAdapter(extended(InputConfig, plugins))
        .validate_python({"canvas": model["canvas"]})
        .canvas
    )


def _described(
    entries: Mapping[str, Mapping[str, Any]], plugins: tuple[str, ...]
) -> tuple[Mapping[str, HeadKind], Vocabulary]:
    """The heads that ``/models`` describes, and the classes of all of them.

    Heads of the same kind of annotation may have different classes.
    """
    kinds = {name: head_of(entry["type"], plugins) for name, entry in entries.items()}
    colours: dict[Annotation, dict[str, tuple[int, int, int] | None]] = {}
    for name, entry in entries.items():
        own = [(r, g, b) for r, g, b in entry.get("colours") or ()]
        of_kind = colours.setdefault(kinds[name].annotation, {})
        for place, each in enumerate(entry["classes"]):
            of_kind.setdefault(each, own[place] if own else None)
    classes = {kind: tuple(found) for kind, found in colours.items()}
    vocabulary = Vocabulary(
        classes=classes,
        colours={
            kind: tuple(rgb for rgb in found.values() if rgb)
            for kind, found in colours.items()
            if all(found.values())
        },
        exclusive_labels=any(head.exclusive for head in kinds.values()),
    )
    heads = {}
    for name, head in kinds.items():
        own_names = tuple(entries[name]["classes"])
        heads[name] = (
            head
            if own_names == classes[head.annotation]
            else head_of(head.type, plugins, classes=own_names)
        )
    return heads, vocabulary
