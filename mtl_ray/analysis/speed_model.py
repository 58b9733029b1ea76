"""The steps of a model that ``speed`` times: from decoded images to predictions."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, cast

import torch
from torch import Tensor

from mtl_ray.analysis.networks import config_at, open_config
from mtl_ray.analysis.speed_data import TimedStep
from mtl_ray.analysis.stopwatch import Stopwatch
from mtl_ray.backends.config import engine_name
from mtl_ray.evaluation.data import open_data
from mtl_ray.experiment import build_model
from mtl_ray.export.verify import check_samples, generate_samples
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.checkpoint import find_checkpoint, open_checkpoint, usable_device
from mtl_ray.inference.places import find_data
from mtl_ray.inference.predictor import (
    HeadArrays,
    Predictor,
    artifact_kind,
    decode_one,
    open_predictor,
)
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.inputs.image import IMAGE
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.inputs.input import Arrays, Input, placed
from mtl_ray.models.head import Head, dense, unsuppressed
from mtl_ray.samples import Sample

_IN_MEMORY = 64
"""Decoded samples; the steps go through them again and again."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be timed.

    Attributes:
        target: its address.
        predictor: what predicts.
        about: what runs it.
        engine: of a bundle.
    """

    target: str
    predictor: Predictor
    about: str
    engine: str | None = None

    @property
    def noun(self) -> str:
        """A word for one datum."""
        return self.predictor.canvas.input.noun

    @property
    def on_gpu(self) -> bool:
        """Whether torch runs it on a GPU."""
        return isinstance(self.predictor, TorchPredictor) and self.predictor.device.type == "cuda"

    def wait(self) -> None:
        """Until the GPU has done what it was asked to."""
        if isinstance(self.predictor, TorchPredictor) and self.on_gpu:
            torch.cuda.synchronize(self.predictor.device)

    def device_mb(self) -> float:
        """The most megabytes that tensors took on the GPU."""
        assert isinstance(self.predictor, TorchPredictor)
        return torch.cuda.max_memory_allocated(self.predictor.device) / 2**20


@contextmanager
def open_subject(
    target: str,
    device: str | None,
    threads: int,
    classes: int | None,
    api_key: str | None,
    engine: str | None = None,
) -> Iterator[Subject]:
    """The model at an address, with one of its engines; torch uses so many threads until the block
    ends.
    """
    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        if engine is not None:
            yield _bundle(target, threads, engine)
        else:
            yield _open(target, usable_device(device), threads, classes, api_key)
    finally:
        torch.set_num_threads(before)


def inference_steps(
    subject: Subject, batch: int, data: str | None, images: str | None
) -> tuple[Any, str]:
    """What begins the steps of a model, each on ``batch`` images, and a line about it."""
    pictures, whence = _pictures(subject, data, images)

    def steps() -> Generator[TimedStep, None, None]:
        endless = cycle(pictures)
        while True:
            group = list(islice(endless, batch))
            yield lambda watch: predict_in_parts(subject.predictor, group, watch)  # noqa: B023

    many = f"{len(pictures)} {subject.noun}s"
    return steps, f"{subject.about}, batch {batch}, {many}: {whence}"


def predict_in_parts(
    predictor: Predictor, raws: Sequence[Any], watch: Stopwatch
) -> list[Mapping[str, Any]]:
    """What ``predictor.predict`` gives, done part by part under a watch."""
    if not isinstance(predictor, TorchPredictor | BundlePredictor) or predictor.slide is not None:
        with watch("request"):
            return list(predictor.predict(raws))
    with watch(predictor.canvas.input.fill_name):
        inputs, frames = placed(raws, predictor.canvas)
    if isinstance(predictor, BundlePredictor):
        with watch("forward"):
            arrays = predictor.run(inputs)
        with watch("post-processing"):
            return _decoded(predictor, arrays, frames)
    with torch.no_grad(), watch("forward"):
        raw = _forward(predictor, inputs, watch)
    with torch.no_grad(), watch("post-processing"):
        with watch("post-processing/suppression"):
            outputs = {
                name: value if (head := dense(each)) is None else head.select(value, False)
                for name, (each, value) in raw.items()
            }
        with watch("post-processing/decode"):
            arrays = {
                name: {field: value.cpu().numpy() for field, value in fields.items()}
                for name, fields in outputs.items()
            }
            return _decoded(predictor, arrays, frames)


def _forward(
    predictor: TorchPredictor, inputs: Arrays, watch: Stopwatch
) -> dict[str, tuple[Head, dict[str, Tensor]]]:
    """Each head, and what it says before suppression where it has one."""
    model = predictor.model
    with watch("forward/trunk"):
        features, context = model.prepare(predictor.tensors(inputs))
    with watch("forward/heads"):
        heads = {name: cast(Head, model.heads[name]) for name in predictor.heads}
        return {name: (head, unsuppressed(head, features, context)) for name, head in heads.items()}


def _decoded(
    predictor: TorchPredictor | BundlePredictor, arrays: HeadArrays, frames: Sequence[Any]
) -> list[Mapping[str, Any]]:
    return [decode_one(arrays, index, frame, predictor.heads) for index, frame in enumerate(frames)]


def _open(
    target: str, device: str, threads: int, classes: int | None, api_key: str | None
) -> Subject:
    if target.endswith((".yaml", ".yml")):
        config, vocabulary = open_config(target, classes)
        model = build_model(
            config.model.without_pretrained(), vocabulary, config.data.canvas
        ).eval()
        made = TorchPredictor(
            model,
            config.model.heads,
            vocabulary,
            config.data.canvas,
            device=device,
            plugins=config.plugins,
        )
        return Subject(target=target, predictor=made, about=f"torch on {device}, random weights")
    if target.startswith(("http://", "https://")):
        return Subject(
            target=target,
            predictor=open_predictor(target, api_key=api_key),
            about="over HTTP, one request an image",
        )
    if artifact_kind(target) == "bundle":
        return _bundle(target, threads, None)
    uri = target if artifact_kind(target) else find_checkpoint(target)
    return Subject(
        target=target, predictor=open_checkpoint(uri, device=device), about=f"torch on {device}"
    )


def is_bundle(target: str) -> bool:
    """Whether an address is that of a bundle."""
    remote = target.startswith(("http://", "https://"))
    return not remote and artifact_kind(target) == "bundle"


def _bundle(target: str, threads: int, engine: str | None) -> Subject:
    """A bundle, with the precision that really runs."""
    bundle = BundlePredictor(target, threads=threads, engine=engine)
    return Subject(
        target=target,
        predictor=bundle,
        about=bundle.about + (", suppression in its graph" if _suppresses(bundle) else ""),
        engine=engine_name(bundle.signature.engine),
    )


def _suppresses(bundle: BundlePredictor) -> bool:
    return bundle.canvas.input == IMAGE and bundle.signature.layout == "end2end"


def _readable(samples: Iterator[Sample], kind: Input[Any, Any, Any, Any]) -> Iterator[Any]:
    """The data that is there and whole; which is not is for an evaluation to say."""
    for sample in samples:
        try:
            yield kind.decode(sample.inputs[kind.name], MAX_PIXELS)
        except ValueError:
            continue


def _pictures(subject: Subject, data: str | None, images: str | None) -> tuple[list[Any], str]:
    """Data and where it comes from."""
    kind = subject.predictor.canvas.input
    if data is not None:
        if kind != IMAGE:
            places = find_data([data], subject.predictor.canvas)[:_IN_MEMORY]
            return [each.read(MAX_PIXELS) for each in places], data
        found = open_data(data, images)
        samples = found.samples(0, min(len(found), _IN_MEMORY), images=True)
        pictures = list(_readable(samples, kind))
        if not pictures:
            raise ValueError(f"no image of {data} can be read; say with --images where they are")
        return pictures, data
    if subject.target.startswith(("http://", "https://")):
        return [raw for _, raw in generate_samples(kind, _IN_MEMORY)], "generated"
    chosen = check_samples(config_at(subject.target).data, subject.predictor.vocabulary, _IN_MEMORY)
    return [raw for _, raw in chosen.samples], chosen.source
