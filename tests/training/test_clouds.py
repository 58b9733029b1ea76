"""A training on clouds with every transform that is killed ends where the undisturbed one does."""

import signal
from pathlib import Path

import pytest

from mtl_ray.training import checkpoint
from tests.loading.clouds import cloud_sample, object_samples, write_clouds
from tests.training.tiny import config_from


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clouds")
    write_clouds(folder / "train", [cloud_sample(seed) for seed in range(14)])
    write_clouds(folder / "val", [cloud_sample(seed) for seed in range(20, 24)])
    write_clouds(folder / "objects", object_samples(range(50, 58)))
    return folder


HEADS = {
    "anchor_3d": {
        "anchors": [
            {"classes": [each], "size": size, "bottom": -1.7, "positive": 0.5, "negative": 0.3}
            for each, size in (
                ("Pedestrian", [0.8, 0.6, 1.73]),
                ("Cyclist", [1.76, 0.6, 1.73]),
                ("Car", [3.9, 1.6, 1.56]),
            )
        ]
    },
    "center_point": {"velocity": False, "shared_channels": 8, "branch_channels": 8},
}


def config_of(clouds: Path, storage: Path, name: str, head: str) -> object:
    return config_from(
        {
            "model": {
                "backbone": {
                    "type": "pillars",
                    "point_channels": [8],
                    "layers": [1, 1],
                    "strides": [2, 2],
                    "channels": [8, 8],
                },
                "necks": {
                    "map": {
                        "type": "secfpn",
                        "inputs": ["B1", "B2"],
                        "upsample": [1, 2],
                        "channels": [8, 8],
                    }
                },
                "heads": {"boxes": {"type": head, **HEADS[head]}},
            },
            "data": {
                "train": {"uri": str(clouds / "train"), "balanced": 0.5},
                "val": {"uri": str(clouds / "val")},
                "canvas": {
                    "type": "points",
                    "minimum": [0, -20, -3],
                    "maximum": [40, 20, 1],
                    "voxel": [1, 1, 4],
                    "max_points": 8,
                    "max_voxels": 600,
                },
                "augment": [
                    {
                        "type": "paste_objects",
                        "database": str(clouds / "objects"),
                        "counts": {"Car": 4},
                        "ground_plane": True,
                    },
                    {"type": "move_objects", "tries": 10},
                    {"type": "flip_cloud"},
                    {"type": "move_cloud", "translation": [0.2, 0.2, 0.1]},
                    {"type": "drop_points"},
                    {"type": "shuffle_points"},
                ],
                "close_mosaic": 0.3,
                "batch": 4,
                "threads": 1,
            },
            "schedule": {"steps": 12, "optimizer": {"lr": 0.003}, "evaluate_every_steps": 12},
            "runtime": {
                "name": name,
                "storage": str(storage),
                "device": "cpu",
                "deterministic": True,
                "checkpoint_every_steps": 4,
                "checkpoint_every_s": None,
                "wandb": "disabled",
            },
            "evaluate": {"pictures": 0},
        }
    )


@pytest.mark.parametrize(
    ("head", "world_size"), [("anchor_3d", 1), ("anchor_3d", 2), ("center_point", 2)]
)
def test_killed_run_ends_bit_for_bit_where_the_undisturbed_one_does(
    train, clouds, tmp_path, head, world_size
):
    whole, killed = (config_of(clouds, tmp_path, name, head) for name in ("whole", "killed"))
    assert train(whole, world_size) == [0] * world_size
    assert -signal.SIGKILL in train(killed, world_size, kill_at=7)
    assert train(killed, world_size) == [0] * world_size
    last = tmp_path / "killed" / "checkpoints" / "step-00000012-a0002"
    assert checkpoint.read_state(str(last)).cursor == 12 * 4
    undisturbed = tmp_path / "whole" / "checkpoints" / "step-00000012-a0001"
    weights = [(folder / "model.safetensors").read_bytes() for folder in (last, undisturbed)]
    assert weights[0] == weights[1]
