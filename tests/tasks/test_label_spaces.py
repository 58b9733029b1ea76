"""Two datasets with overlapping classes, and two heads with different ones: from the splits to
what a server answers.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_ray.evaluation.evaluate import EvaluationRequest, evaluate, write_results
from mtl_ray.experiment import ExperimentConfig, batch_fields, build_model
from mtl_ray.export.bundle import export
from mtl_ray.export.config import ExportConfig
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.endpoint import EndpointPredictor
from mtl_ray.inputs.decode import decode_image
from mtl_ray.loading.batch import Batch
from mtl_ray.loading.loader import Loader
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.serving.app import App
from mtl_ray.serving.compare import compare_files
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service, describe_model
from mtl_ray.shards.split import open_split
from mtl_ray.shards.write import publish_manifest, shard_name, write_shard
from mtl_ray.tasks.detection.dense.config import RetinaNetHead
from mtl_ray.training.context import RunContext
from mtl_ray.training.trainer import run
from tests.serving.server import running
from tests.tasks.head_cases import CLASS_GRADIENTS
from tests.training.tiny import config_from, sample, values

DATASETS = {"a": ("cat", "dog"), "b": ("dog", "fox")}
RUN = ("cat", "dog", "fox")
SELECT = {"score_threshold": 0.0, "max_detections": 5}
BOXES = {"type": "retinanet", "levels": ["C3"], "channels": 8, "convs": 0, "select": SELECT}
HEADS: dict[str, Any] = {
    "boxes": BOXES,
    "foxes": BOXES | {"classes": ["fox"]},
    "labels": {"type": "linear"},
    "turned": {"type": "multilabel", "classes": ["fox", "cat"]},
    "maps": {"type": "fcn", "levels": ["C3"], "channels": 8, "convs": 0, "classes": ["fox", "dog"]},
}


def write_dataset(uri: str, names: tuple[str, str], count: int, seed: int) -> str:
    """The pictures of the tiny split, with two classes of each kind."""
    rng = np.random.default_rng(seed)
    classes = dict.fromkeys(("labels", "instances", "semantic"), names)
    entry = write_shard(
        uri,
        shard_name("one", 0),
        [_of_two(sample(rng, f"{names}-{number}")) for number in range(count)],
    )
    publish_manifest(
        uri,
        [entry],
        name="one",
        vocabulary=Vocabulary(classes=classes, exclusive_labels=True),
        shuffled=True,
        provenance={},
    )
    return uri


def _of_two(found: Sample) -> Sample:
    assert found.labels is not None
    assert found.instances is not None
    objects = replace(
        found.instances,
        classes=found.instances.classes % 2,
        crowd=np.zeros(1, bool),
        difficult=np.zeros(1, bool),
    )
    return found.with_annotations(labels=found.labels % 2, instances=objects)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("spaces")
    given = values(folder, folder / "runs")
    given["model"]["heads"] = json.loads(json.dumps(HEADS))
    for part, count in (("train", 8), ("val", 5)):
        given["data"][part] = {
            "uri": [
                write_dataset(str(folder / part / name), names, count, 1)
                for name, names in DATASETS.items()
            ]
        }
    return config_from(given, "schedule.steps=3", "schedule.evaluate_every_steps=3", "data.batch=8")


@pytest.fixture(scope="module")
def trained(config: ExperimentConfig) -> str:
    run(config, RunContext())
    return f"{config.runtime.storage}/run"


@pytest.fixture(scope="module")
def bundle(trained: str, config: ExperimentConfig) -> str:
    """Its parity was measured by the export, head by head, on samples of one of the datasets."""
    made = export(trained, f"{trained}-bundle", ExportConfig(samples=2))
    assert not made.parity.failures
    assert made.samples == config.data.val.uri[0]
    # which this dataset does not know
    assert {pair.head for pair in made.parity.metrics} == HEADS.keys() - {"foxes"}
    return made.uri


def test_a_batch_of_both_datasets_says_what_each_knows(config: ExperimentConfig) -> None:
    loader = Loader(config.data, seed=0)
    assert loader.vocabulary.classes == dict.fromkeys(("labels", "instances", "semantic"), RUN)
    batch = next(iter(loader))
    for target in batch.targets.values():
        for key, known in zip(batch.keys, target["known_classes"].tolist(), strict=True):
            assert known == [name in DATASETS["a" if "cat" in key else "b"] for name in RUN]


def test_a_dataset_teaches_no_class_that_it_does_not_know(config: ExperimentConfig) -> None:
    """The batch of one dataset in a run of both: its gradient for the other's class is zero, in
    every head that has it.
    """
    loader = Loader(config.data, seed=0)
    batch = next(iter(loader))
    of_a = [place for place, key in enumerate(batch.keys) if "cat" in key]
    assert 0 < len(of_a) < len(batch.keys)
    taken = Batch(
        inputs={name: value[of_a] for name, value in batch.inputs.items()},
        targets={
            kind: {name: value[of_a] for name, value in target.items()}
            for kind, target in batch.targets.items()
        },
        keys=(),
    )
    model = build_model(config.model, loader.vocabulary)
    torch.stack([value for value, _ in model.losses(taken).values()]).sum().backward()
    of_head = {
        "boxes": RUN,
        "foxes": ("fox",),
        "labels": RUN,
        "turned": ("fox", "cat"),
        "maps": ("fox", "dog"),
    }
    for name, names in of_head.items():
        gradients = torch.cat(CLASS_GRADIENTS[HEADS[name]["type"]](model.heads[name]))
        assert not gradients[:, names.index("fox")].any(), name
        if "cat" in names:
            assert gradients[:, names.index("cat")].any(), name


def test_two_heads_of_one_kind_are_evaluated_in_their_own_classes(
    trained: str, bundle: str, config: ExperimentConfig
) -> None:
    uris = config.data.val.uri
    assert isinstance(uris, tuple)
    tables = {}
    for name, uri in zip(DATASETS, uris, strict=True):
        report, part = evaluate(EvaluationRequest(target=bundle, data=uri))
        tables[name] = {head: metric.per_class() for head, metric in part.metrics.items()}
        again, _ = evaluate(
            EvaluationRequest(target=write_results(f"{trained}-{name}", report, part)[1], data=uri)
        )
        assert again.figures == pytest.approx(report.figures, nan_ok=True)
        checkpoint, _ = evaluate(EvaluationRequest(target=trained, data=uri))
        assert checkpoint.figures == pytest.approx(report.figures, abs=1e-4, nan_ok=True)
    assert {head: list(table) for head, table in tables["b"].items()} == {
        "boxes": ["cat", "dog", "fox"],
        "foxes": ["fox"],
        "labels": ["cat", "dog", "fox"],
        "turned": ["fox", "cat"],
        "maps": ["fox", "dog"],
    }
    assert tables["b"]["foxes"]["fox"]["objects"] == tables["b"]["boxes"]["fox"]["objects"] > 0
    assert tables["a"]["foxes"]["fox"]["objects"] == 0
    assert np.isnan(tables["a"]["boxes"]["fox"]["mAP"])
    assert np.isnan(tables["a"]["turned"]["fox"]["precision"])
    stored = json.loads(Path(f"{trained}-b/foxes.coco.json").read_text())
    assert {entry["category_id"] for entry in stored} == {DATASETS["b"].index("fox")}


def test_a_server_answers_with_the_names_of_each_head(
    bundle: str, config: ExperimentConfig, tmp_path: Path
) -> None:
    predictor = BundlePredictor(bundle, threads=1)
    assert predictor.vocabulary.classes["instances"] == RUN
    served = describe_model("one", predictor)["heads"]
    assert {name: head["classes"] for name, head in served.items()} == {
        "boxes": ["cat", "dog", "fox"],
        "foxes": ["fox"],
        "labels": ["cat", "dog", "fox"],
        "turned": ["fox", "cat"],
        "maps": ["fox", "dog"],
    }
    picture = tmp_path / "picture.png"
    picture.write_bytes(next(open_split(config.data.val.uri[0]).read(0, 1)).image)
    app = App(Service({"one": predictor}, ServeConfig()), ServeConfig(), parallel=1)
    with running(app) as port:
        endpoint = EndpointPredictor(f"http://127.0.0.1:{port}")
        answer = endpoint.answer(picture.read_bytes(), 0.0)
        found = list(compare_files(endpoint, predictor, [str(picture)]))
        (through,) = endpoint.predict([decode_image(picture.read_bytes())])
    app.close()
    assert {each["class_name"] for each in answer["foxes"]} == {"fox"}
    assert {each["class_name"] for each in answer["turned"]} == {"fox", "cat"}
    assert {each["class_name"] for each in answer["maps"]["classes"]} <= {"fox", "dog"}
    assert {each.head: each.mismatches for each in found} == dict.fromkeys(HEADS, ())
    assert through["turned"].scores.shape == (2,)
    assert endpoint.heads["foxes"].classes == ("fox",)
    assert endpoint.heads["boxes"].classes is None


def test_a_class_that_no_dataset_has_is_refused_before_the_first_step(
    config: ExperimentConfig,
) -> None:
    wrong = replace(
        config,
        model=replace(
            config.model, heads={"boxes": RetinaNetHead(levels=("C3",), classes=("fax",))}
        ),
    )
    with pytest.raises(
        ValueError, match=r"model\.heads\.boxes\.classes: 'fax' is no class of the instances .*fox"
    ):
        run(replace(wrong, runtime=replace(config.runtime, name="wrong")), RunContext())


def test_further_arrays_of_a_batch_are_asked_for_by_heads() -> None:
    class Masks(RetinaNetHead):
        fields = frozenset({"masks"})

    assert batch_fields({"a": RetinaNetHead(), "b": Masks(levels=("C3",))}) == {
        "instances": frozenset({"masks"})
    }
