"""Sheets of samples for a dataset check: with their annotations, and duplicates side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.browse import panels
from mtl_ray.analysis.health_clouds import MOST_NUMBERS
from mtl_ray.analysis.health_data import HealthDataset
from mtl_ray.analysis.health_report import HealthReport
from mtl_ray.geometry.drawing import Drawing
from mtl_ray.geometry.panels import grid, jpeg, shrunk
from mtl_ray.inputs.decode import decode_image
from mtl_ray.layout import Layout
from mtl_ray.samples import Sample

SHEET = 12
"""Number of samples that are drawn of each dataset."""
THUMB_PX = 320


def samples_sheet(each: HealthDataset) -> bytes | None:
    """Some samples of a dataset with their annotations; None if there are none."""
    rows = np.unique(
        np.linspace(0, max(0, len(each) - 1), min(SHEET, len(each))).round().astype(np.int64)
    )
    drawn = [
        (key, picture)
        for row in rows.tolist()
        if (found := _drawn(each, row)) is not None
        for key, picture in [found]
    ]
    if not drawn:
        return None
    kinds = max(1, len(each.vocabulary.classes))
    columns = max(1, round(4 / kinds))
    return jpeg(
        grid(
            [shrunk(picture, THUMB_PX * kinds) for _, picture in drawn],
            columns,
            [key for key, _ in drawn],
        )
    )


def _drawn(each: HealthDataset, row: int) -> tuple[str, NDArray[np.uint8]] | None:
    sample = each.sample(row)
    if sample is None:
        return None
    try:
        shown = _shown(sample, each.layout)
        if shown is None:
            return None
        return sample.key, panels(shown, sample, each.vocabulary, each.layout.plugins)
    except ValueError:
        return None  # the report names it


def _shown(sample: Sample, layout: Layout) -> NDArray[np.uint8] | None:
    """The image, the cloud from above, or how another input is shown; None if there is none."""
    if sample.image_size:
        return decode_image(sample.image) if sample.image else None
    kind = layout.inputs[0]
    encoded = sample.inputs.get(kind.name)
    return None if encoded is None else kind.show(kind.decode(encoded, MOST_NUMBERS))


def same_sheet(report: HealthReport, sets: Sequence[HealthDataset]) -> bytes | None:
    """The first pairs, two in a row; pairs across datasets come before those within one."""
    pairs = sorted(report.same, key=lambda pair: (pair.a == pair.b, pair.how))[:SHEET]
    wanted = [
        (place, key)
        for pair in pairs
        for place, key in ((pair.a, pair.key_a), (pair.b, pair.key_b))
    ]
    rows = [
        {identity.key: identity.row for identity in health.identities} for health in report.sets
    ]
    pictures = []
    for place, key in wanted:
        sample = sets[place].sample(rows[place][key])
        assert sample is not None
        shown = _shown(sample, sets[place].layout)
        assert shown is not None
        pictures.append(shrunk(Drawing(shown).pixels, THUMB_PX))
    titles = [title for pair in pairs for title in (pair.key_a, f"{pair.how}: {pair.key_b}")]
    return jpeg(grid(pictures, 4, titles)) if pictures else None
