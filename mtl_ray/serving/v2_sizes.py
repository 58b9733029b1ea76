"""The shapes that the graph of a bundle takes: those at which it was checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtl_ray.config.validate import values_of
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inputs.input import AnyCanvas, ArraySpec, empty_batch
from mtl_ray.serving.reply import RequestError
from mtl_ray.serving.v2_tensors import GivenTensor


class InputSizes:
    """Checks the shapes of a request's inputs.

    An open axis that a field of the canvas is named after (height, width) has that length. Any
    other one (voxels) has as many as the data needs, at most as many as the canvas says. A bundle
    without a checked range takes its own canvas only.

    Args:
        name: of the model.
        predictor: the bundle.
        max_batch: most samples of one request.
    """

    def __init__(self, name: str, predictor: BundlePredictor, max_batch: int) -> None:
        self.name = name
        self.max_batch = max_batch
        self.canvas: Any = predictor.canvas
        self.checked: Sequence[AnyCanvas] = predictor.checked or (predictor.canvas,)
        specs = predictor.canvas.input.arrays(predictor.canvas)
        self.specs: dict[str, ArraySpec] = {
            each.name: specs[each.field] for each in predictor.signature.inputs
        }
        self._of_canvas = frozenset(values_of(predictor.canvas))
        self._ranges = _ranges(predictor.canvas, specs, self._of_canvas)
        self._shapes = {
            each.name: self._shape(each.name, each.field) for each in predictor.signature.inputs
        }

    def shape(self, name: str) -> list[int]:
        """The shape of an input; -1 for axes that may differ."""
        return self._shapes[name]

    def check(self, tensors: Mapping[str, GivenTensor]) -> AnyCanvas:
        """The canvas that the shapes of all inputs belong to.

        Raises:
            RequestError: 400 if there is none, or the bundle was not checked at it.
        """
        lengths: dict[str, int] = {}
        for name, tensor in tensors.items():
            spec = self.specs[name]
            if len(tensor.shape) != 1 + len(spec.shape):
                raise self._misshapen(tensor)
            for axis, (given, fixed) in enumerate(zip(tensor.shape[1:], spec.shape, strict=True)):
                open_axis = spec.open_axes.get(axis)
                if given != (fixed if open_axis is None else lengths.setdefault(open_axis, given)):
                    raise self._misshapen(tensor)
        batches = {tensor.shape[0] for tensor in tensors.values()}
        if len(batches) > 1:
            raise RequestError(400, "the first axis, the batch, must be the same of all inputs")
        if not 1 <= (batch := batches.pop()) <= self.max_batch:
            raise RequestError(
                400, f"the batch is {batch:,}; one request has 1 to {self.max_batch} samples"
            )
        for axis_name, (least, most) in self._ranges.items():
            if axis_name in lengths and not least <= lengths[axis_name] <= most:
                raise RequestError(
                    400,
                    f"there are {lengths[axis_name]:,} {axis_name}; the model {self.name} takes "
                    f"{least} to {most:,}",
                )
        return self._rule({n: each for n, each in lengths.items() if n in self._of_canvas})

    def _rule(self, lengths: Mapping[str, int]) -> AnyCanvas:
        said = " and ".join(f"{name} {length:,}" for name, length in lengths.items())
        try:
            rule: AnyCanvas = replace(self.canvas, **lengths)
        except ValueError:
            raise RequestError(400, f"the model {self.name} takes no {said}") from None
        if (reason := rule.input.outside(rule, self.checked)) is not None:
            raise RequestError(400, f"the model {self.name} was not checked at {said}: {reason}")
        return rule

    def _misshapen(self, tensor: GivenTensor) -> RequestError:
        given, wanted = (
            ", ".join(map(str, shape)) for shape in (tensor.shape, self.shape(tensor.name))
        )
        return RequestError(
            400, f"the input {tensor.name} has the shape [{given}]; the model takes [{wanted}]"
        )

    def _shape(self, name: str, field: str) -> list[int]:
        spec = self.specs[name]
        shapes = [each.input.arrays(each)[field].shape for each in self.checked]
        differing = {
            axis
            for axis, open_axis in spec.open_axes.items()
            if open_axis in self._ranges or len({shape[axis] for shape in shapes}) > 1
        }
        return [-1] + [-1 if i in differing else length for i, length in enumerate(spec.shape)]


def _ranges(
    canvas: AnyCanvas, specs: Mapping[str, ArraySpec], of_canvas: frozenset[str]
) -> dict[str, tuple[int, int]]:
    """The least and the greatest length of the axes that are as long as the data needs."""
    least = empty_batch(canvas, 1)
    return {
        name: (least[field].shape[axis + 1], spec.shape[axis])
        for field, spec in specs.items()
        for axis, name in spec.open_axes.items()
        if name not in of_canvas
    }
