"""Catalog of well-known datasets: URLs, sizes and checksums, or instructions if an account is
needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_COCO = "http://images.cocodataset.org"
_LVIS = "https://dl.fbaipublicfiles.com/LVIS"
_VOC = ("http://host.robots.ox.ac.uk/pascal/VOC", "https://thor.robots.ox.ac.uk/pascal/VOC")
_OBJECTS365 = (
    "https://dorc.ks3-cn-beijing.ksyun.com/data-set/2020Objects365%E6%95%B0%E6%8D%AE%E9%9B%86"
)
_REFER = "https://bvisionweb1.cs.unc.edu/licheng/referit/data"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file of a dataset.

    Attributes:
        urls: alternatives, the first to be tried first.
        path: path in the output folder; by default the last part of the URL.
        into: folder in the output folder into which an archive is unpacked.
        size, digest: as in ``fetch.Wanted``, if known.
    """

    urls: tuple[str, ...]
    path: str = ""
    into: str = ""
    size: int | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The path in the output folder."""
        return self.path or self.urls[0].rpartition("/")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogEntry:
    """A dataset of the catalog; one without files has instructions."""

    about: str
    files: tuple[File, ...] = ()
    instructions: str = ""


def _file(url: str, digest: str | None = None, size: int | None = None, **more: str) -> File:
    return File(urls=(url,), digest=digest, size=size, **more)


def _voc(path: str, digest: str | None = None) -> File:
    return File(urls=tuple(f"{base}/{path}" for base in _VOC), digest=digest)


_TRAIN2017 = _file(
    f"{_COCO}/zips/train2017.zip", "md5:cced6f7f71b7629ddf16f17bbcfab6b2", 19336861798
)
_VAL2017 = _file(f"{_COCO}/zips/val2017.zip", "md5:442b8da7639aecaf257c1dceb8ba8c80", 815585330)

CATALOG: Mapping[str, CatalogEntry] = MappingProxyType(
    {
        "coco2017": CatalogEntry(
            about="COCO 2017: boxes, masks, keypoints, stuff, panoptic; 118,000 + 5,000 + 41,000 "
            "images",
            files=(
                *(
                    _TRAIN2017,
                    _VAL2017,
                    _file(f"{_COCO}/zips/test2017.zip", "md5:77ad2c53ac5d0aea611d422c0938fb35"),
                ),
                _file(f"{_COCO}/zips/unlabeled2017.zip"),
                _file(
                    f"{_COCO}/annotations/annotations_trainval2017.zip",
                    "md5:f4bbac642086de4f52a3fdda2de5fa2c",
                    252907541,
                ),
                *(
                    _file(f"{_COCO}/annotations/{name}2017.zip")
                    for name in (
                        "stuff_annotations_trainval",
                        "panoptic_annotations_trainval",
                        "image_info_test",
                        "image_info_unlabeled",
                    )
                ),
            ),
        ),
        "coco2014": CatalogEntry(
            about="COCO 2014",
            files=(
                _file(f"{_COCO}/zips/train2014.zip", "md5:0da8cfa0e090c266b78f30e2d2874f1a"),
                _file(f"{_COCO}/zips/val2014.zip", "md5:a3d79f5ed8d289b7a7554ce06a5782b3"),
                _file(f"{_COCO}/zips/test2014.zip"),
                _file(
                    f"{_COCO}/annotations/annotations_trainval2014.zip",
                    "md5:0a379cfc70b0e71301e0f377548639bd",
                ),
                _file(f"{_COCO}/annotations/image_info_test2014.zip"),
            ),
        ),
        "lvis": CatalogEntry(
            about="LVIS v1: masks of 1,203 classes on the images of COCO 2017",
            files=(
                *(
                    _file(f"{_LVIS}/lvis_v1_{split}.json.zip", into="annotations")
                    for split in ("train", "val")
                ),
                *(_TRAIN2017, _VAL2017),
            ),
        ),
        "voc2007": CatalogEntry(
            about="Pascal VOC 2007: 20 classes, train, val and test",
            files=(
                _voc("voc2007/VOCtrainval_06-Nov-2007.tar", "md5:c52e279531787c972589f7e41ab4ae64"),
                _voc("voc2007/VOCtest_06-Nov-2007.tar", "md5:b6e924de25625d8de591ea690078ad9f"),
                _voc("voc2007/VOCdevkit_08-Jun-2007.tar"),
            ),
        ),
        "voc2012": CatalogEntry(
            about="Pascal VOC 2012: 20 classes, train and val",
            files=(
                _voc("voc2012/VOCtrainval_11-May-2012.tar", "md5:6cd6e144f989b92b3379bac3b3de84fd"),
            ),
        ),
        "balloon": CatalogEntry(
            about="Balloons: masks of one class, in VIA's form",
            files=(
                _file(
                    "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"
                ),
            ),
        ),
        "ade20k_2016": CatalogEntry(
            about="ADE20K as of the challenge of 2016: semantic maps of 150 classes",
            files=(
                _file("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"),
            ),
        ),
        "objects365v2": CatalogEntry(
            about="Objects365 v2: boxes of 365 classes",
            files=(
                _file(f"{_OBJECTS365}/train/zhiyuan_objv2_train.tar.gz", into="annotations"),
                _file(
                    f"{_OBJECTS365}/val/zhiyuan_objv2_val.json",
                    path="annotations/zhiyuan_objv2_val.json",
                ),
                *(
                    _file(
                        f"{_OBJECTS365}/train/patch{n}.tar.gz",
                        path=f"train_zip/patch{n}.tar.gz",
                        into="train",
                    )
                    for n in range(51)
                ),
                *(
                    _file(
                        f"{_OBJECTS365}/val/images/v{1 if n < 16 else 2}/patch{n}.tar.gz",
                        path=f"val_zip/patch{n}.tar.gz",
                        into="val",
                    )
                    for n in range(44)
                ),
            ),
        ),
        "refcoco": CatalogEntry(
            about="RefCOCO, RefCOCO+, RefCOCOg: phrases for objects of COCO 2014",
            files=tuple(
                _file(f"{_REFER}/{name}.zip") for name in ("refcoco", "refcoco+", "refcocog")
            ),
        ),
        "cityscapes-instructions": CatalogEntry(
            about="Cityscapes: how to get it, since it needs an account",
            instructions="""Cityscapes is given to registered users only.
  1. Make an account at https://www.cityscapes-dataset.com/register and accept the licence.
  2. From https://www.cityscapes-dataset.com/downloads take leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB).
  3. Unpack both into one folder, so that it has leftImg8bit/train/CITY/ and gtFine/train/CITY/.
  4. python -m jobs.convert cityscapes FOLDER --split train --to shards/cityscapes/train""",  # noqa: E501
        ),
        "nuimages-instructions": CatalogEntry(
            about="nuImages: how to get it, since it needs an account",
            instructions="""nuImages is given to registered users only.
  1. Make an account at https://www.nuscenes.org/sign-up and accept the terms.
  2. From https://www.nuscenes.org/nuimages#download take Metadata and Samples.
  3. Unpack both into one folder, so that it has v1.0-train/ and samples/.
  4. python -m jobs.convert nuimages FOLDER --split train --to shards/nuimages/train""",
        ),
        "imagenet-instructions": CatalogEntry(
            about="ImageNet (ILSVRC 2012): how to get it, since it needs an account",
            instructions="""ImageNet is given to registered users only.
  1. Make an account at https://image-net.org/signup and ask for access.
  2. From https://image-net.org/challenges/LSVRC/2012 take the training images (138 GB) and the validation images (6.3 GB).
  3. Unpack each class's TAR into a folder of its name: train/CLASS/, val/CLASS/.
  4. python -m jobs.convert image_folder FOLDER --split train --to shards/imagenet/train""",  # noqa: E501
        ),
    }
)
