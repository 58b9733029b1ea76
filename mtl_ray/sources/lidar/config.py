"""Config classes of point clouds; each field is also a CLI option of ``jobs.convert``."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.inputs.cloud_options import file_features
from mtl_ray.sources.source import RawSource, Source

if TYPE_CHECKING:
    from mtl_ray.sources.image_reading import ImageRule


def _checked_features(value: int | str) -> int | str:
    names = file_features(str(value), ()).names
    if names[:3] != ("x", "y", "z"):
        raise ValueError(f"features is {value!r}; the names must begin with x,y,z")
    return int(value) if str(value).isdigit() else value


PointFeatures = Annotated[int | str, AfterValidator(_checked_features)]
"""How many numbers a point has in a file that does not say it, or their names."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Kitti(RawSource):
    """KITTI objects: training/{velodyne,calib,label_2,image_2}/ID.*, testing/ the same without
    labels. Clouds of several cameras in this form (Waymo) have label_all, image_0, image_1, ...
    """

    type: Literal["kitti"] = "kitti"
    root: str
    """The folder with training/ and testing/ (a path or s3://...)."""
    split: str
    """The list ImageSets/SPLIT.txt; without any lists all of training/. "test" is testing/."""
    classes: str | None = None
    """File with one class name per line; by default Pedestrian, Cyclist, Car. Objects of other
    names are kept without a class.
    """
    clouds: Literal["auto", "velodyne", "velodyne_reduced"] = "auto"
    """Folder of the clouds. velodyne_reduced has only points in the image; where it is not there,
    it is made from velodyne. auto: velodyne_reduced where it is there, else velodyne.
    """
    features: PointFeatures = 4
    """Numbers of a point in the files: how many, of x, y, z, intensity, ring, time, ... in this
    order; or their names, such as x,y,z,intensity,elongation.
    """
    camera_images: bool = True
    """Whether the images of the cameras are stored too, where they are there."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.kitti import open_kitti

        return open_kitti(self, rule)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clouds(RawSource):
    """Point clouds without annotations, for predictions: .bin, .npy, .pcd and .ply files."""

    annotated: ClassVar[bool] = False
    type: Literal["clouds"] = "clouds"
    root: str
    """The folder of the files (a path or s3://...)."""
    split: str
    """The folder below ROOT, also deeper; ROOT itself if the clouds lie directly in it."""
    classes: str | None = None
    """File with one class name per line, of the objects to detect; by default none are named."""
    features: PointFeatures = 4
    """Numbers of a point in .bin files: how many, of x, y, z, intensity, ring, time, ... in this
    order; or their names, such as x,y,z,intensity,elongation.
    """

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.clouds import open_clouds

        return open_clouds(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Street(RawSource):
    """Built-in dataset: streets with cars, cyclists and pedestrians as a spinning lidar on a car
    sees them.
    """

    type: Literal["street"] = "street"
    root: str = "-"
    """Not used: the dataset is generated."""
    split: str
    """The name seeds the scenes, so splits of other names have other scenes."""
    num: int = Field(default=1000, ge=1)
    """Number of scenes."""
    seed: int = Field(default=0, ge=0)
    """Another seed gives other scenes; on the command line it also seeds the order of rows."""
    sector: Literal["front", "full"] = "front"
    """front: what the camera sees, as KITTI's reduced clouds; full: all around."""
    beams: int = Field(default=64, ge=8, le=128)
    """Lasers, one above the other."""
    resolution: float = Field(default=0.2, ge=0.05, le=2)
    """Degrees between two measurements of a laser."""

    def open(self, rule: "ImageRule") -> Source:
        """See ``RawSource``."""
        from mtl_ray.sources.lidar.street import open_street

        return open_street(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CloudObjects(RawSource):
    """Single objects of a converted split of clouds, each a sample with its points and its box: the
    database from which objects are pasted into training scenes.
    """

    type: Literal["objects"] = "objects"
    root: str
    """The folder of the converted split, usually that of training."""
    split: str
    """The name of the new split."""
    min_points: int = Field(default=5, ge=1)
    """Objects with fewer points are left out."""
    unknown_difficulty: bool = False
    """Whether objects are kept that KITTI counts at no level: lower than 25 pixels, hardly visible
    or more than half outside the image.
    """


LidarConfig = Kitti | Clouds | Street
