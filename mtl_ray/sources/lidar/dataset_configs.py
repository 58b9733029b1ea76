"""Config classes of point clouds around a car, with several sensors; each field is also a CLI
option of ``jobs.convert``.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.sources.source import RawSource, Source

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule

MOST_SWEEPS = 10
"""Most earlier sweeps that are added to a key frame: half a second of nuScenes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NuScenes(RawSource):
    """nuScenes: the tables of v1.0-trainval, v1.0-test or v1.0-mini, samples/ and sweeps/."""

    type: Literal["nuscenes"] = "nuscenes"
    root: str
    """The folder with v1.0-*/ and samples/ (a path or s3://...)."""
    split: str
    """train, val, test, mini_train, mini_val: the official scenes. trainval, mini or v1.0-...: all
    scenes of a version.
    """
    version: str | None = None
    """Folder of the tables, by default that of the split."""
    scenes: str | None = None
    """File with one scene name per line, instead of the scenes of the split."""
    sweeps: int = Field(default=0, ge=0, le=MOST_SWEEPS)
    """Earlier sweeps that are added to each key frame; points then have "time", the seconds before
    the key frame, in place of "ring".
    """
    classes: str | None = None
    """File with one class name per line; by default the ten classes of detection, in CenterPoint's
    order. Other objects are kept without a class.
    """
    camera_images: bool = False
    """Whether the images of the six cameras are stored too."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.nuscenes import open_nuscenes

        return open_nuscenes(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lyft(RawSource):
    """Lyft Level 5: ROOT/v1.01-train/{v1.01-train/*.json, lidar, images}, and lists of scenes."""

    type: Literal["lyft"] = "lyft"
    root: str
    """The folder with v1.01-train/ or v1.01-test/ (a path or s3://...)."""
    split: str
    """train or val: the scenes in ROOT/SPLIT.txt; test: all of v1.01-test. trainval or v1.01-...:
    all scenes of a version.
    """
    version: str | None = None
    """Folder of the data, by default that of the split."""
    scenes: str | None = None
    """File with one scene name per line, instead of ROOT/SPLIT.txt."""
    sweeps: int = Field(default=0, ge=0, le=MOST_SWEEPS)
    """Earlier sweeps that are added to each key frame; points then have "time", the seconds before
    the key frame, in place of "ring".
    """
    classes: str | None = None
    """File with one class name per line; by default Lyft's nine classes. Other objects are kept
    without a class.
    """
    camera_images: bool = False
    """Whether the images of the six cameras are stored too."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.lyft import open_lyft

        return open_lyft(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Waymo(RawSource):
    """Waymo Open Dataset (perception, v1): *.tfrecord of frames with range images and labels."""

    type: Literal["waymo"] = "waymo"
    root: str
    """The folder with training/, validation/, testing/ (a path or s3://...)."""
    split: str
    """The folder below ROOT; train, val and test also mean training, validation and testing."""
    prefix: int | None = Field(default=None, ge=0, le=9)
    """First digit of the names of frames, followed by three digits of the file and three of the
    frame; by default 0 for training, 1 for validation, 2 for all others.
    """
    stride: int = Field(default=1, ge=1)
    """Every which frame is used, of ten a second; 5 is the usual fifth of the data."""
    empty_boxes: bool = False
    """Whether objects without a point are kept."""
    classes: str | None = None
    """File with one class name per line; by default Car, Pedestrian, Cyclist. Signs are kept
    without a class.
    """
    camera_images: bool = False
    """Whether the images of the five cameras are stored too."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.waymo import open_waymo

        return open_waymo(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenmmlabInfos(RawSource):
    """Info files of MMDetection3D, of 0.x and 1.x, for KITTI, nuScenes, Lyft and Waymo; read
    without executing code in them.
    """

    type: Literal["openmmlab_infos"] = "openmmlab_infos"
    root: str
    """The folder of the dataset (a path or s3://...)."""
    split: str
    """Part of the file's name: ROOT/*infos_SPLIT.pkl or .json."""
    infos: str | None = None
    """The info file, relative to ROOT, if it has another name."""
    dataset: Literal["kitti", "nuscenes", "lyft", "waymo"] | None = None
    """Whose conventions it follows; by default what the file says."""
    clouds: str | None = None
    """Folder of the clouds, relative to ROOT; by default the usual folders of the dataset."""
    sweeps: int = Field(default=0, ge=0, le=MOST_SWEEPS)
    """Earlier sweeps that are added to each frame, of nuScenes and Lyft."""
    classes: str | None = None
    """File with one class name per line; by default the usual classes of the dataset. Other objects
    are kept without a class.
    """
    camera_images: bool = False
    """Whether the images of the cameras are stored too, where they are there."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.openmmlab_infos import open_openmmlab_infos

        return open_openmmlab_infos(self)


DrivingConfig = NuScenes | Lyft | Waymo | OpenmmlabInfos
