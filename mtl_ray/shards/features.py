"""Which features of a ``tf.train.Example`` a Sample becomes, and the inverse.

The names are those that ObjectiveMTL's readers look for, boxes and points in whole pixels. Names
under ``mtl/`` hold what these cannot; where ``mtl/annotated`` is there, they are preferred and a
Sample comes back exactly.
"""

from collections.abc import Sequence

from mtl_ray.columns import Feature, Features, byte_list, first_bytes
from mtl_ray.layout import Layout
from mtl_ray.samples import Sample, present

ANNOTATED = "mtl/annotated"


def to_features(sample: Sample, layout: Layout, keypoints: Sequence[str]) -> dict[str, Feature]:
    """The features of a Sample; ``keypoints`` are the names under which others find them."""
    features: dict[str, Feature] = {"name": [sample.key.encode()]}
    for each in layout.inputs:
        features |= each.to_features(sample.inputs[each.name])
    annotated: list[bytes] = []
    for kind in layout.annotations:
        value = sample.annotations.get(kind.name)
        if value is not None:
            annotated.append(kind.name.encode())
            features |= kind.to_features(value, keypoints)
    return features | {ANNOTATED: annotated}


def to_sample(features: Features, layout: Layout, keypoints: Sequence[str] = ()) -> Sample:
    """The Sample of some features: exactly the one that was written, or what ObjectiveMTL's names
    say of it.

    Args:
        features: of an Example.
        layout: what to look for.
        keypoints: names of the nodes of an Example from elsewhere.

    Raises:
        ValueError: if there is no input or no name, or the features do not fit together.
    """
    key = next(
        (
            found
            for name in ("name", "image_name", "image_id")
            if (found := first_bytes(features, name)) is not None
        ),
        None,
    )
    inputs = {each.name: each.from_features(features) for each in layout.inputs}
    if key is None or any(value is None for value in inputs.values()):
        lacking = (
            ["name"] if key is None else [name for name, value in inputs.items() if value is None]
        )
        raise ValueError(
            f"a record has no {lacking[0]}; it has {', '.join(sorted(features)) or 'nothing'}"
        )
    values = {
        kind.name: kind.from_features(features, keypoints, is_annotated(features, kind.name))
        for kind in layout.annotations
    }
    return Sample(key=key.decode(), inputs=inputs, annotations=present(values))


def is_annotated(features: Features, kind: str) -> bool | None:
    """Whether an Example says that a kind is annotated; None for one from elsewhere, which does
    not say it.
    """
    if ANNOTATED not in features:
        return None
    return kind.encode() in {bytes(value) for value in byte_list(features, ANNOTATED)}
