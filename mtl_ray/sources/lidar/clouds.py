"""Files of point clouds, and folders of them without annotations, for predictions."""

from dataclasses import dataclass
from functools import partial

from mtl_ray import storage
from mtl_ray.inputs.cloud_files import SUFFIXES, check_suffix, feature_names
from mtl_ray.inputs.cloud_options import FileFeatures, read_with_features
from mtl_ray.inputs.input import TooLargeError
from mtl_ray.inputs.point_cloud import PointCloud, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import read_class_names
from mtl_ray.sources.folders import PASSED_OVER, is_of_a_system, stamps_of, subfolders
from mtl_ray.sources.lidar.config import Clouds
from mtl_ray.sources.source import (
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    as_text,
    fingerprint_of,
)

MOST_NUMBERS = 100_000_000
"""Points times features of a file; a shard takes no larger sample."""


def read_cloud(uri: str, name: str, features: int | str, *, guessed: bool = False) -> PointCloud:
    """Reads the file of a cloud.

    Args:
        uri: of the file.
        name: of the file, for messages.
        features: numbers of a point in a file that does not name them: how many, or their names
            with commas between them.
        guessed: whether another number of features in a file is noticed; see ``read_cloud_file``.

    Raises:
        UnreadableError: if it is missing, damaged or too large.
    """
    try:
        if storage.size(uri) > 8 * MOST_NUMBERS:
            raise UnreadableError(name, f"the cloud has more than {MOST_NUMBERS:,} numbers")
        data = storage.read(uri)
        check_suffix(data, name)
        names = feature_names(features) if isinstance(features, int) else features.split(",")
        stated = FileFeatures(names=tuple(names), counted=not guessed, named=True)
        return read_with_features(data, MOST_NUMBERS, features=stated)
    except FileNotFoundError:
        raise UnreadableError(name, "listed but not there") from None
    except OSError as error:
        reason = error.strerror or str(error) or "cannot be opened"
        raise UnreadableError(name, f"cannot be opened: {reason}") from None
    except UnreadableError:
        raise
    except TooLargeError as error:
        raise UnreadableError(name, f"the cloud is too large: {error}") from None
    except ValueError as error:
        raise UnreadableError(name, f"the cloud cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    folder: str
    features: int | str


def open_clouds(config: Clouds) -> Source:
    """Lists the clouds in ROOT/SPLIT, also deeper; those in ROOT if ROOT has clouds but no folder
    SPLIT.

    Raises:
        FileNotFoundError: if there are no clouds.
    """
    root = storage.absolute(config.root)
    folders = subfolders(root)
    here = config.split not in folders and any(map(_is_cloud, storage.names(root)))
    folder = root if here else storage.join(root, config.split)
    files = sorted(uri.removeprefix(folder).lstrip("/") for uri in storage.files(folder))
    found = [name for name in files if _is_cloud(name)]
    if not found:
        raise FileNotFoundError(
            f"there are no {', '.join(SUFFIXES)} files in {folder}; folders in {root}: "
            f"{', '.join(folders) or 'none'}"
        )
    others = (name for name in files if not _is_cloud(name) and not is_of_a_system(name))
    names = () if config.classes is None else read_class_names(storage.absolute(config.classes))
    return Source(
        vocabulary=Vocabulary(classes={"boxes_3d": names} if names else {}),
        records=found,
        reader=partial(_read, _Reader(folder, config.features)),
        skipped=tuple(SkippedItem(name, "", PASSED_OVER, note=True) for name in others),
        fingerprint=fingerprint_of([*names, *map(as_text, found), *stamps_of(folder, found)]),
        layout=CLOUDS,
    )


def _is_cloud(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_of_a_system(name)


def _read(reader: _Reader, key: str) -> Reading:
    cloud = read_cloud(storage.join(reader.folder, key), key, reader.features, guessed=True)
    return Sample(key=key, inputs={"points": encoded_points(cloud)}), []
