"""Lyft Level 5 (Kesten et al. 2019): the layout of nuScenes with other folders and nine classes.

Frame: that of LIDAR_TOP; see ``nuscenes.py``. The tables are in ROOT/v1.01-train/v1.01-train, the
files in ROOT/v1.01-train/lidar and images. One cloud of the published data
(host-a011_lidar1_1233090652702363606.bin) lacks its last two numbers; it is skipped, with its name
and the reason.
"""

from mtl_ray import storage
from mtl_ray.sources.folders import subfolders
from mtl_ray.sources.image_reading import USUAL_RULE, ImageRule
from mtl_ray.sources.lidar.dataset_configs import Lyft
from mtl_ray.sources.lidar.nuscenes import list_key_frames, scene_names
from mtl_ray.sources.lidar.nuscenes_frames import KeyFrameRules
from mtl_ray.sources.lidar.objects import read_classes
from mtl_ray.sources.source import Source

CLASSES = (
    *("car", "truck", "bus", "emergency_vehicle", "other_vehicle", "motorcycle", "bicycle"),
    *("pedestrian", "animal"),
)
_VERSIONS = {"train": "v1.01-train", "val": "v1.01-train", "trainval": "v1.01-train"} | {
    "test": "v1.01-test"
}


def open_lyft(config: Lyft, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists the key frames of the scenes of a split.

    Raises:
        FileNotFoundError: if there is no such version, a table or the list of scenes is missing.
        ValueError: if a table is damaged, or no scene of the split is there.
    """
    root = storage.absolute(config.root)
    found = [name for name in subfolders(root) if name.startswith("v1.")]
    version = config.version or _VERSIONS.get(config.split, config.split)
    if version not in found:
        raise FileNotFoundError(
            f"{root} has no folder {version} with the data of {config.split!r}; it has "
            f"{', '.join(found) or 'none'}; splits: {', '.join(_VERSIONS)}"
        )
    data = storage.join(root, version)
    inner = storage.join(data, version)
    tables = inner if storage.exists(inner) else data
    rules = KeyFrameRules(
        root=data,
        classes=read_classes(config.classes, CLASSES),
        benchmark="",
        sweeps=config.sweeps,
        images=config.camera_images,
        needed=rule.needed,
    )
    return list_key_frames(config, tables, _scenes(config, root), rules)


def _scenes(config: Lyft, root: str) -> frozenset[str] | None:
    """Names of the scenes of a split; None for all."""
    uri = storage.join(root, f"{config.split}.txt")
    if config.scenes is not None or storage.exists(uri):
        return scene_names(config.scenes or uri)
    if config.split in ("train", "val"):
        raise FileNotFoundError(
            f"there is no list of scenes {uri}; Fix: --scenes FILE with one name per line, or "
            "--split trainval for all scenes"
        )
    return None
