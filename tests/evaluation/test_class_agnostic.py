"""Objects of all classes counted as of one: the figures are pycocotools' with ``useCats=0``."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.evaluation.config import EvaluateConfig
from mtl_ray.evaluation.evaluate import EvaluationRequest, evaluate, write_results
from mtl_ray.evaluation.metrics import ANY_CLASS, ClassAgnostic, head_metrics
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.detection.columns import ScoredImage
from mtl_ray.tasks.detection.task import DETECTION
from mtl_ray.tasks.head_classes import HeadClasses
from mtl_ray.tasks.task import KnownHead
from tests.tasks.random_objects import detections, instances, random_images, sample_of
from tests.tasks.reference_coco import reference

VOCABULARY = Vocabulary(classes={"instances": ("a", "b", "c")})
HEAD = KnownHead(type="any", task=DETECTION, annotation="instances", exclusive=False)


def distinct(seed: int) -> list[ScoredImage]:
    """Images whose scores differ: pycocotools orders equal ones by class."""
    rng = np.random.default_rng(seed)
    found = []
    for image in random_images(seed):
        scores = rng.permutation(len(image.predicted)) / 1000 + rng.random() / 2000
        predicted = replace(image.predicted, scores=scores.astype(np.float32))
        order = np.argsort(-predicted.scores)
        found.append(image._replace(predicted=predicted.select(order)))
    return found


def measured(images: list[ScoredImage], head: KnownHead = HEAD) -> ClassAgnostic:
    metric = ClassAgnostic(HeadClasses.of(head, VOCABULARY))
    for image in images:
        metric.update(sample_of(image), image.predicted)
    return metric


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_figures_are_those_of_pycocotools_without_categories(seed: int) -> None:
    images = distinct(seed)
    if not any(len(image.predicted) for image in images):
        return
    result = measured(images).result()
    for prefix, kind in (("", "bbox"), ("segm_", "segm")):
        precision, recall = reference(kind, images, 3, use_cats=False)
        for name, values in (
            ("mAP", precision[:, :, :, 0, -1]),
            ("mAP50", precision[0, :, :, 0, -1]),
            ("AR@100", recall[:, :, 0, -1]),
        ):
            known = values[values > -1]
            expected = known.mean() if known.size else np.nan
            assert result[prefix + name] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_a_wrong_class_is_right_without_classes() -> None:
    image = ScoredImage(
        "a.png",
        200,
        260,
        instances([[10, 10, 60, 60]], [2]),
        detections([[10, 10, 60, 60]], [0.9], [1]),
    )
    metric = measured([image])
    assert metric.result()["mAP"] == pytest.approx(1.0)
    assert list(metric.per_class()) == [ANY_CLASS]
    assert DETECTION.metric(HEAD, VOCABULARY).main == metric.main
    other = measured([image._replace(key="b.png")])
    metric.merge(other)
    assert metric.per_class()[ANY_CLASS]["objects"] == 2


def test_detections_of_classes_that_a_dataset_does_not_know_are_left_out() -> None:
    image = ScoredImage(
        "a.png",
        200,
        260,
        instances([[10, 10, 60, 60]], [0]),
        detections([[100, 10, 160, 60], [10, 10, 60, 60]], [0.95, 0.9], [1, 0]),
    )
    known = {"instances": np.array([True, False, True])}
    metric = ClassAgnostic(HeadClasses.of(HEAD, VOCABULARY))
    metric.update(replace(sample_of(image), known_classes=known), image.predicted)
    assert metric.result()["mAP"] == pytest.approx(1.0)
    assert measured([image]).result()["mAP"] < 0.6, "it would count where the class is known"
    narrow = replace(HEAD, classes=("c", "a"))
    of_head = measured([image._replace(predicted=image.predicted.select(np.array([1])))], narrow)
    assert of_head.result()["mAP"] == pytest.approx(1.0)


def test_the_config_of_a_training_says_it_too() -> None:
    heads = {"boxes": HEAD}
    assert isinstance(
        head_metrics(heads, VOCABULARY, EvaluateConfig(class_agnostic=True))["boxes"],
        ClassAgnostic,
    )
    plain = head_metrics(heads, VOCABULARY, EvaluateConfig())["boxes"]
    assert not isinstance(plain, ClassAgnostic)


def test_evaluate_does_it_with_variants_and_says_so(
    checkpoint: str, coco: str, split: str, tmp_path: object
) -> None:
    request = EvaluationRequest(target=checkpoint, data=split, tta="none", class_agnostic=True)
    report, part = evaluate(request)
    assert list(report.per_class["boxes"]) == [ANY_CLASS]
    assert "objects of all classes were counted as of one class" in report.facts["notes"]
    stored = write_results(f"{tmp_path}/out", report, part)[1]
    again, _ = evaluate(EvaluationRequest(target=stored, data=split, class_agnostic=True))
    assert again.figures == pytest.approx(report.figures, nan_ok=True)
    with pytest.raises(ValueError, match="holds predictions; leave out --tta"):
        evaluate(EvaluationRequest(target=stored, data=split, tta="flip"))
    with pytest.raises(ValueError, match="averages scores"):
        evaluate(EvaluationRequest(target=checkpoint, data=split, tta="flip"))
