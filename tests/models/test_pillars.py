"""The trunks of point clouds: sizes of the published networks, and what padding may not do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_ray.experiment import build_model, load_experiment
from mtl_ray.geometry.voxels import hard_voxels
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.models.lidar_config import PillarsBackbone, SecfpnNeck
from mtl_ray.models.pillars import PillarFeatures
from mtl_ray.models.sparse import SparseConv
from mtl_ray.samples import Vocabulary
from tests.models.lidar_cases import (
    CANVAS,
    FINE,
    KITTI,
    NUSCENES,
    PILLARS,
    SECOND,
    cloud,
    inputs_of,
    model_of,
    padded,
    parameters,
    warmed,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "lidar"
CAR = Vocabulary(classes={"boxes_3d": ("Car",)})


@pytest.mark.parametrize(
    ("name", "vocabulary", "count"),
    [
        ("pointpillars_kitti_car", CAR, 4_814_868),
        ("pointpillars_kitti_3class", KITTI, 4_834_888),
        ("second_kitti_3class", KITTI, 5_325_576),
        ("centerpoint_pillar_nuscenes", NUSCENES, 5_982_854),
    ],
)
def test_published_networks_have_their_number_of_parameters(
    name: str, vocabulary: Vocabulary, count: int
) -> None:
    config = load_experiment(CONFIGS / f"{name}.yaml")
    assert parameters(build_model(config.model, vocabulary, config.data.canvas)) == count


def test_second_for_cars_has_its_number_of_parameters() -> None:
    config = load_experiment(
        CONFIGS / "second_kitti_3class.yaml",
        [
            "model.heads.boxes.classes=[Car]",
            "model.heads.boxes.anchors=[{size: [3.9, 1.6, 1.56], bottom: -1.78}]",
        ],
    )
    assert parameters(build_model(config.model, CAR, config.data.canvas)) == 5_298_900


@pytest.mark.parametrize(("legacy", "z_offset"), [(True, True), (False, True), (True, False)])
def test_points_of_a_pillar_are_described_as_published(legacy: bool, z_offset: bool) -> None:
    """Point by point; slots without a point count as zeros."""
    config = PillarsBackbone(legacy=legacy, z_offset=z_offset, point_channels=(8,))
    layer = PillarFeatures(config).eval()
    torch.nn.init.normal_(layer.pfn_layers[0].norm.bias)
    found = hard_voxels(cloud(200).points, CANVAS.grid, CANVAS.max_points, 600)
    voxels = torch.from_numpy(found.points)
    with torch.no_grad():
        own = layer(
            voxels, torch.from_numpy(found.counts), torch.from_numpy(found.coordinates), CANVAS.grid
        )
    for row, (points, count, (z, y, x)) in enumerate(
        zip(found.points, found.counts, found.coordinates, strict=True)
    ):
        centre = np.array([x, y, z]) * CANVAS.voxel + np.array(CANVAS.voxel) / 2 + CANVAS.minimum
        rows = []
        for slot in range(len(points)):
            if slot >= count:
                rows.append(np.zeros(10 if z_offset else 9))
                continue
            xyz, rest = points[slot, :3], points[slot, 3:]
            offset = (xyz - centre)[: 3 if z_offset else 2]
            first = np.concatenate([offset, xyz[len(offset) :]]) if legacy else xyz
            mean = points[:count, :3].mean(axis=0)
            rows.append(np.concatenate([first, rest, xyz - mean, offset]))
        linear = layer.pfn_layers[0]
        values = torch.tensor(np.array(rows), dtype=torch.float32)
        with torch.no_grad():
            wanted = torch.relu(linear.norm(linear.linear(values))).amax(dim=0)
        torch.testing.assert_close(own[row], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("config", "canvas"), [(PILLARS, CANVAS), (SECOND, FINE)])
def test_padding_changes_nothing(config: dict[str, Any], canvas: PointCanvas, train: bool) -> None:
    """Neither features nor statistics, in training as in evaluation."""
    inputs = inputs_of([cloud(400), cloud(60, seed=1)], canvas)
    found = []
    for each in (inputs, padded(inputs, 40)):
        model = model_of(config, canvas=canvas).train(train)
        features, _ = model.prepare(each)
        found.append((features["BEV"].detach(), model.state_dict()))
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], msg=name)


@pytest.mark.parametrize(("config", "canvas"), [(PILLARS, CANVAS), (SECOND, FINE)])
def test_a_cloud_has_the_same_features_alone_and_in_a_batch(
    config: dict[str, Any], canvas: PointCanvas
) -> None:
    model = warmed(model_of(config, canvas=canvas))
    clouds = [cloud(400), cloud(0), cloud(1, seed=2), cloud(90, seed=3)]
    with torch.no_grad():
        together, _ = model.prepare(inputs_of(clouds, canvas))
        for row, each in enumerate(clouds):
            alone, _ = model.prepare(inputs_of([each], canvas))
            torch.testing.assert_close(together["BEV"][row], alone["BEV"][0], rtol=1e-4, atol=1e-4)
    assert together["BEV"].std() > 0.01


def test_pillars_of_the_exported_form_are_those_of_the_other() -> None:
    model = warmed(model_of(PILLARS))
    inputs = padded(inputs_of([cloud(400), cloud(60, seed=1)]), 11)
    with torch.no_grad():
        plain, _ = model.prepare(inputs)
        exporting, _ = model.prepare(inputs, exporting=True)
    torch.testing.assert_close(plain["BEV"], exporting["BEV"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("config", "canvas"), [(PILLARS, CANVAS), (SECOND, FINE)])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0)])
def test_empty_clouds_can_be_learnt(
    config: dict[str, Any], canvas: PointCanvas, counts: tuple[int, int]
) -> None:
    model = model_of(config, canvas=canvas).train()
    features, _ = model.prepare(inputs_of([cloud(count, seed=2) for count in counts], canvas))
    features["BEV"].sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())


def test_a_real_frame_has_its_published_number_of_pillars(shared_data: Path) -> None:
    folder = shared_data / "lidar_kitti_samples" / "training" / "velodyne_reduced"
    points = np.fromfile(folder / "000008.bin", np.float32).reshape(-1, 4)
    config = load_experiment(CONFIGS / "pointpillars_kitti_3class.yaml")
    canvas = config.data.canvas
    assert isinstance(canvas, PointCanvas)
    found = hard_voxels(points, canvas.grid, canvas.max_points, canvas.max_voxels)
    assert (len(points), len(found.counts)) == (17_238, 3_945)


def test_second_refuses_to_be_exported() -> None:
    model = model_of(SECOND, canvas=FINE).eval()
    with pytest.raises(ValueError, match="sparse encoder of backbone 'second' cannot be exported"):
        model.prepare(inputs_of([cloud(20)], FINE), exporting=True)


@pytest.mark.parametrize(
    ("config", "canvas", "says"),
    [
        (PILLARS, FINE, "cells along z, and pillars have one"),
        (SECOND, CANVAS, "model.backbone.height=1"),
        (
            {**PILLARS, "backbone": {"type": "pillars", "point_features": 5}},
            CANVAS,
            "model.backbone.point_features=4",
        ),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(
    config: dict[str, Any], canvas: PointCanvas, says: str
) -> None:
    model = model_of({**config, "necks": {}}, canvas=canvas).eval()
    with pytest.raises(ValueError, match=says):
        model.prepare(inputs_of([cloud(20)], canvas))


def test_a_network_of_clouds_says_that_it_needs_them() -> None:
    model = model_of(PILLARS, canvas=None).eval()
    with pytest.raises(ValueError, match=r"data\.canvas of type points"):
        model.prepare(inputs_of([cloud(20)]))


def test_the_neck_wants_maps_of_one_size() -> None:
    channels, strides = {"B1": 4, "B2": 8}, {"B1": 2, "B2": 4}
    options = {"inputs": ("B1", "B2"), "channels": (4, 4)}
    neck = SecfpnNeck(upsample=(0.5, 1), **options).build(channels, strides)
    assert neck.strides == {"BEV": 4}
    with pytest.raises(ValueError, match="different strides"):
        SecfpnNeck(upsample=(1, 1), **options).build(channels, strides)
    with pytest.raises(ValueError, match="whole number"):
        SecfpnNeck(upsample=(1, 1.5), **options)


@pytest.mark.parametrize("spconv", [1, 2])
def test_sparse_weights_of_both_layouts_are_imported(spconv: int) -> None:
    model = model_of(SECOND, canvas=FINE)
    backbone = model.trunk.backbone
    published = {}
    for name, value in backbone.state_dict().items():
        prefix = "" if name.startswith("middle_encoder") else "backbone."
        turn = spconv == 2 and value.dim() == 5
        published[prefix + name] = value.permute(4, 0, 1, 2, 3) if turn else value
    found = backbone.imported("openmmlab", published)  # type: ignore[operator]
    assert {name: each.value.shape for name, each in found.items()} == {
        name: each.shape for name, each in backbone.state_dict().items()
    }
    assert all(torch.equal(each.value, backbone.state_dict()[name]) for name, each in found.items())
    assert sum(isinstance(each, SparseConv) for each in backbone.modules()) == 8
