"""The whole pipeline on one Ray: raw images, shards, a trained model, its metrics, a bundle,
answers over HTTP.
"""

import math
import os
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import ray

from mtl_ray import storage
from mtl_ray.artifact import MANIFEST, open_artifact
from mtl_ray.config.extend import extended
from mtl_ray.config.validate import read_record
from mtl_ray.distributed.config import PipelineConfig
from mtl_ray.distributed.convert import convert
from mtl_ray.distributed.evaluate import evaluate_rows
from mtl_ray.distributed.proxy import fast_proxy
from mtl_ray.distributed.serve import serving
from mtl_ray.distributed.session import session
from mtl_ray.distributed.stage import Stage, StageOutcome, answer_text, short_uri
from mtl_ray.distributed.train import train, with_absolute_uris
from mtl_ray.evaluation.evaluate import EvaluationRequest, write_results
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.export.bundle import checkpoint_of, export
from mtl_ray.export.parity import ParityError, parity_table
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inference.files import predict_files
from mtl_ray.inference.predictor import open_predictor
from mtl_ray.plugin import installed_plugins
from mtl_ray.serving.compare import compare_files
from mtl_ray.shards.split import open_split
from mtl_ray.sources.config import ConvertConfig, SourceConfig
from mtl_ray.training.resume import run_uri
from mtl_ray.training.wandb_sync import send_bundle


def run_pipeline(config: PipelineConfig) -> Iterator[Stage]:
    """Runs the stages in order, and yields each when it is done.

    A second run skips what is finished. If the parity check of the export fails, the pipeline ends
    there.

    Raises:
        ValueError, FileNotFoundError: as the stages do.
    """
    runtime = config.experiment.runtime
    cpus = max(os.cpu_count() or 1, math.ceil(runtime.most_workers * runtime.cpus_per_worker))
    serve = config.experiment.serve
    with ExitStack() as until_the_end:
        if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
            until_the_end.enter_context(fast_proxy(serve.timeout_s, serve.host, serve.port))
        until_the_end.enter_context(session(num_cpus=cpus))
        pipeline = _Pipeline(config, with_absolute_uris(config.experiment), until_the_end)
        for name, work in pipeline.stages():
            print(f"\n== {name}", flush=True)
            started = time.monotonic()
            outcome = work()
            yield Stage(name=name, seconds=time.monotonic() - started, outcome=outcome)
            if name == "export" and not outcome.held:
                return


@dataclass
class _Pipeline:
    """The stages of one pipeline.

    Attributes:
        config: of the pipeline.
        experiment: its experiment, with absolute URIs.
        until_the_end: keeps the server running until the last stage is done.
        url: of the server, once it answers.
        images: URIs of the images that are sent to it.
    """

    config: PipelineConfig
    experiment: ExperimentConfig
    until_the_end: ExitStack
    url: str = ""
    images: list[str] = field(default_factory=list)

    def stages(self) -> list[tuple[str, Callable[[], StageOutcome]]]:
        """Name and function of each stage, in order."""
        stages: list[tuple[str, Callable[[], StageOutcome]]] = []
        if (raw := self.config.convert) is not None:
            stages.append(
                ("convert train", lambda: self._convert(raw.train, self.experiment.data.train.uri))
            )
            stages.append(
                ("convert val", lambda: self._convert(raw.val, self.experiment.data.val.uri))
            )
        return [
            *stages,
            ("train", self._train),
            ("evaluate", self._evaluate),
            ("export", self._export),
            ("serve", self._serve),
            ("compare", self._compare),
        ]

    def _in_run(self, name: str) -> str:
        """The URI of a file or folder in the folder of the run, which holds all results of the
        pipeline.
        """
        return storage.join(run_uri(self.experiment), name)

    def _convert(self, source: SourceConfig, to: str | Sequence[str]) -> StageOutcome:
        assert self.config.convert is not None
        plugins = tuple(dict.fromkeys((*self.experiment.plugins, *installed_plugins())))
        config_type = extended(ConvertConfig, plugins)  # a plugin may have added the source
        form = self.config.convert.format
        made = convert(config_type(source=source, to=_only(to), format=form, plugins=plugins))
        there = "" if made.fresh else ", there already"
        return StageOutcome(
            result=f"{made.manifest.num_samples:,} samples, {made.findings.rejected} left "
            f"out{there}",
            where=made.uri,
        )

    def _train(self) -> StageOutcome:
        summary = train(self.experiment)
        best = summary["best"]
        figure = f", best {best['metric']} {best['value']:.3f}" if best else ""
        workers = self.experiment.runtime.most_workers
        return StageOutcome(
            result=f"{summary['step']:,} steps on {workers} worker{'s' * (workers > 1)}{figure}",
            where=summary["run"],
        )

    def _evaluate(self) -> StageOutcome:
        request = EvaluationRequest(
            target=run_uri(self.experiment),
            data=_only(self.experiment.data.val.uri),
            batch=self.experiment.evaluate.batch,
        )
        report, part = evaluate_rows(request, self.experiment.runtime.most_workers)
        write_results(self._in_run("evaluation"), report, part)
        print(report.to_text())
        lower_is_better = {
            f"{head}/{name}"
            for head, metric in part.metrics.items()
            for name in metric.lower_is_better
        }
        result, held = check_expected(report.figures, self.config.expect, lower_is_better)
        return StageOutcome(result=result, where=self._in_run("evaluation"), held=held)

    def _export(self) -> StageOutcome:
        run, to = run_uri(self.experiment), self._in_run("bundle")
        if _exported_from(to) == checkpoint_of(run):
            return StageOutcome(result="there already", where=to)
        try:
            bundle = export(
                run, to, self.experiment.export, self.experiment.data, self.experiment.plugins
            )
        except ParityError as error:
            print(parity_table(error.parity))
            return StageOutcome(result=f"parity failed: {error}", where=to, held=False)
        send_bundle(run, bundle.uri, self.experiment)
        print(parity_table(bundle.parity))
        return StageOutcome(result=f"{bundle.bytes / 1e6:.1f} MB, parity passed", where=to)

    def _serve(self) -> StageOutcome:
        """Prints one answer, and draws the predictions of all answers on the images."""
        config = self.experiment.serve
        self.url = self.until_the_end.enter_context(
            serving({self.experiment.runtime.name: self._in_run("bundle")}, config)
        )
        self.images = self._write_images()
        endpoint = EndpointPredictor(self.url)
        started = time.monotonic()
        answer = endpoint.answer(
            storage.read(self.images[0]), score_threshold=config.score_threshold
        )
        took = time.monotonic() - started
        print(
            f"POST {endpoint.url} with {short_uri(self.images[0])} is "
            f"answered:\n{answer_text(answer)}"
        )
        bad = predict_files(endpoint, self.images, self._in_run("answers"), config.score_threshold)
        result = f"HTTP answer in {took * 1000:.0f} ms, {len(self.images) - len(bad)} images drawn"
        return StageOutcome(result=result, where=self._in_run("answers"), held=not bad)

    def _write_images(self) -> list[str]:
        """Writes the first validation images as files; returns their URIs."""
        split, kind = (
            open_split(_only(self.experiment.data.val.uri)),
            self.experiment.data.canvas.input,
        )
        uris = []
        for number, sample in enumerate(
            split.read(0, min(self.config.pictures, split.num_samples))
        ):
            suffix, content = kind.to_file(sample.inputs[kind.name])
            uris.append(self._in_run(f"images/{number:02d}{suffix}"))
            storage.write(uris[-1], content)
        return uris

    def _compare(self) -> StageOutcome:
        """Compares the answers over HTTP with the predictions of torch."""
        endpoint, model = EndpointPredictor(self.url), open_predictor(run_uri(self.experiment))
        found = list(compare_files(endpoint, model, self.images))
        for part in found:
            print(f"{short_uri(part.file)}  {part.head}: {part.compared} compared, {part.figures}")
            print("".join(f"  mismatch: {sentence}\n" for sentence in part.mismatches), end="")
        held = not any(part.mismatches for part in found)
        result = (
            f"{len(self.images)} images: HTTP {'agrees with' if held else 'differs from'} torch"
        )
        return StageOutcome(result=result, where=endpoint.url, held=held)


def check_expected(
    figures: Mapping[str, float],
    expect: Mapping[str, float],
    lower_is_better: Container[str] = (),
) -> tuple[str, bool]:
    """A sentence about the expected metrics, and whether all are reached.

    Args:
        figures: what was measured.
        expect: the value that each must reach.
        lower_is_better: those of which less is better.

    Raises:
        ValueError: if a metric is expected that was not measured.
    """
    if unknown := [name for name in expect if name not in figures]:
        raise ValueError(
            f"the pipeline expects {unknown[0]}, which was not measured; there is "
            f"{', '.join(figures)}"
        )
    words, reached = [], True
    for name, bound in expect.items():
        value, lower = figures[name], name in lower_is_better
        holds = value <= bound if lower else value >= bound
        sign = ("<=" if lower else ">=") if holds else "is above" if lower else "is below"
        words.append(f"{name} {value:.3f} {sign} {bound:g}")
        reached = reached and holds
    return ", ".join(words) or f"{len(figures)} figures", reached


def _only(uri: str | Sequence[str]) -> str:
    if not isinstance(uri, str):
        raise ValueError(
            "a pipeline writes and evaluates single splits: data.train.uri and data.val.uri must "
            "each name one"
        )
    return uri


def _exported_from(bundle: str) -> str | None:
    """The checkpoint from which the bundle at a URI was exported; None if there is no bundle."""
    if not storage.exists(storage.join(bundle, MANIFEST)):
        return None
    data = open_artifact(bundle, kind="bundle").read("metrics.json")
    metrics = read_record(data, dict[str, Any], storage.join(bundle, "metrics.json"))
    return str(metrics.get("checkpoint"))
