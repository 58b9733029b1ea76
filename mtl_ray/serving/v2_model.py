"""A bundle as raw tensors: its graph's own inputs and outputs under the names of
``signature.json``, checked before the engine sees them.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.backends.backend import EngineError, GraphArrays
from mtl_ray.inference.bundle import BundlePredictor, to_graph
from mtl_ray.inputs.input import empty_batch
from mtl_ray.serving.config import version_key
from mtl_ray.serving.reply import Reply, RequestError, quoted
from mtl_ray.serving.v2_sizes import InputSizes
from mtl_ray.serving.v2_tensors import (
    GivenTensor,
    InferRequest,
    datatype_of,
    to_array,
)

VERSION = "1"
"""The version of a model that has only one."""


class TensorCall(Protocol):
    """One request for raw tensors in the form of its protocol (HTTP or gRPC). A worker thread
    reads it and writes the answer.
    """

    def read(self) -> InferRequest:
        """The request.

        Raises:
            RequestError: if it is malformed.
        """
        ...

    def write(self, request: InferRequest, outputs: GraphArrays) -> Reply:
        """The answer."""
        ...

    def refuse(self, error: RequestError) -> Reply:
        """The answer that says why there is none."""
        ...


class TensorModel:
    """The graph of one served bundle.

    Args:
        name: of the model.
        predictor: the bundle.
        max_batch: most samples of one request.
        version: of the model; empty if it has only one.
    """

    def __init__(
        self, name: str, predictor: BundlePredictor, max_batch: int, version: str = ""
    ) -> None:
        self.key = version_key(name, version) if version else name
        self.name, self.version = name, version or VERSION
        self.predictor = predictor
        self.max_batch = min(max_batch, predictor.max_batch or max_batch)
        self.inputs = {each.name: each for each in predictor.signature.inputs}
        self.outputs = tuple(each.name for each in predictor.signature.outputs)
        self.sizes = InputSizes(name, predictor, self.max_batch)
        self._described: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def replies(self, calls: Sequence[TensorCall]) -> list[Reply]:
        """The answers to some requests. Those of the same shapes run in one batch."""
        read = [self._read(call) for call in calls]
        replies = [each if isinstance(each, Reply) else None for each in read]
        waiting = [(place, *each) for place, each in enumerate(read) if not isinstance(each, Reply)]
        waiting.sort(key=lambda each: _form(each[2]))
        for _, group in groupby(waiting, key=lambda each: _form(each[2])):
            for part in _parts(group, self.max_batch):
                places, requests, arrays = zip(*part, strict=True)
                found = self._run(arrays)
                for place, request, outputs in zip(places, requests, found, strict=True):
                    replies[place] = self._write(calls[place], request, outputs)
        return [each for each in replies if each is not None]

    def metadata(self) -> dict[str, Any]:
        """The answer to ``GET /v2/models/NAME/versions/VERSION``. -1 is an open axis. The first
        call runs the graph, which says the shapes of its outputs.
        """
        with self._lock:
            if self._described is None:
                self._described = self._describe()
        return self._described

    def check(self, request: InferRequest) -> dict[str, NDArray[Any]]:
        """The arrays of a request by the names of the graph.

        Raises:
            RequestError: 400 in one sentence, if they do not fit the signature, or the sizes are
                outside the range at which the bundle was checked.
        """
        given = self._named(request.inputs)
        if unknown := [name for name in request.outputs or () if name not in self.outputs]:
            raise RequestError(
                400,
                f"the model {self.name} has no output {quoted(unknown[0])}; it has "
                f"{', '.join(self.outputs)}",
            )
        rule = self.sizes.check(given)
        arrays = {name: to_array(tensor) for name, tensor in given.items()}
        fields = {self.inputs[name].field: values for name, values in arrays.items()}
        if (reason := rule.input.unfit(rule, fields)) is not None:
            raise RequestError(400, f"the input is outside the canvas: {reason}")
        return arrays

    def _read(self, call: TensorCall) -> Reply | tuple[InferRequest, dict[str, NDArray[Any]]]:
        try:
            request = call.read()
            return request, self.check(request)
        except RequestError as error:
            return call.refuse(error)

    def _write(
        self, call: TensorCall, request: InferRequest, outputs: GraphArrays | RequestError
    ) -> Reply:
        try:
            if isinstance(outputs, RequestError):
                return call.refuse(outputs)
            names = self.outputs if request.outputs is None else request.outputs
            return call.write(request, {name: outputs[name] for name in names})
        except RequestError as error:
            return call.refuse(error)

    def _run(
        self, requests: Sequence[Mapping[str, NDArray[Any]]]
    ) -> Sequence[GraphArrays | RequestError]:
        """The outputs of requests of the same shapes, which are one batch together."""
        session = self.predictor.session
        try:
            if len(requests) == 1:
                return [session.run(requests[0])]
            sizes = [_batch(each) for each in requests]
            joined = session.run(
                {name: np.concatenate([each[name] for each in requests]) for name in self.inputs}
            )
            ends = np.cumsum(sizes)[:-1]
            parts = {name: np.split(joined[name], ends) for name in self.outputs}
            return [
                {name: values[i] for name, values in parts.items()} for i in range(len(requests))
            ]
        except EngineError as error:
            if len(requests) > 1:
                return [each for one in requests for each in self._run([one])]
            return [RequestError(500, f"the engine could not run this request: {error}")]

    def _named(self, tensors: Sequence[GivenTensor]) -> dict[str, GivenTensor]:
        """The tensors by name; all inputs of the graph, each once, in its datatype."""
        given: dict[str, GivenTensor] = {}
        for tensor in tensors:
            if tensor.name not in self.inputs:
                raise RequestError(
                    400,
                    f"the model {self.name} has no input {quoted(tensor.name)}; it has "
                    f"{', '.join(self.inputs)}",
                )
            if tensor.name in given:
                raise RequestError(400, f"the input {tensor.name} is there twice")
            wanted = datatype_of(self.inputs[tensor.name].dtype)
            if tensor.datatype != wanted:
                raise RequestError(
                    400,
                    f"the input {tensor.name} is of the datatype {quoted(tensor.datatype)}; the "
                    f"model takes {wanted}",
                )
            given[tensor.name] = tensor
        if missing := [name for name in self.inputs if name not in given]:
            raise RequestError(400, f"the input {missing[0]} is missing")
        return {name: given[name] for name in self.inputs}

    def _describe(self) -> dict[str, Any]:
        signature = self.predictor.signature
        probes = [
            self.predictor.session.run(to_graph(empty_batch(canvas, 1), signature))
            for canvas in dict.fromkeys((self.predictor.canvas, *self.sizes.checked))
        ]
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": f"mtl_ray_{signature.engine.type}",
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype_of(each.dtype),
                    "shape": self.sizes.shape(name),
                }
                for name, each in self.inputs.items()
            ],
            "outputs": [
                {
                    "name": name,
                    "datatype": datatype_of(probes[0][name].dtype),
                    "shape": [-1, *_common([probe[name].shape[1:] for probe in probes])],
                }
                for name in self.outputs
            ],
        }


def _form(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Equal for requests that can be joined."""
    return str([values.shape[1:] for values in arrays.values()])


_Checked = tuple[int, InferRequest, Mapping[str, NDArray[Any]]]
"""The place of a call among others, its request, and its arrays."""


def _batch(arrays: Mapping[str, NDArray[Any]]) -> int:
    """The samples of a request."""
    return len(next(iter(arrays.values())))


def _parts(requests: Iterable[_Checked], most: int) -> Iterator[list[_Checked]]:
    """Requests one after the other, as many at a time as have at most ``most`` samples."""
    part: list[_Checked] = []
    samples = 0
    for request in requests:
        size = _batch(request[2])
        if part and samples + size > most:
            yield part
            part, samples = [], 0
        part.append(request)
        samples += size
    if part:
        yield part


def _common(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The length of each axis, -1 where they differ."""
    return [axis[0] if len(set(axis)) == 1 else -1 for axis in zip(*shapes, strict=True)]
