"""Upgrades detectors of MMDetection 1.x to 2.x: the background class moves from the first place to
the last.

The rules are those of MMDetection's upgrade_model_version, with its faults fixed:

* A bias is treated like the first axis of its weight (there, bias and weight lose different
  classes).
* Versions are compared as numbers (there "2.10.0" is before "2.5.0").
* Sigmoid classifiers, which have no background, stay unchanged.
* The stored config is not executed.

With ``compat`` the faults stay.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_CLASSIFIER = re.compile(
    r"(?:.*\.)?(?:conv_cls|retina_cls|fc_cls|fcos_cls|fovea_cls)\.(?:weight|bias)"
)
_RPN_CLASSIFIER = re.compile(r"(?:.*\.)?rpn_cls\.(?:weight|bias)")
_SSD_CLASSIFIER = re.compile(r"bbox_head\.cls_convs\.\d+\.(?:weight|bias)")
_ROI_HEADS = ("bbox_head", "mask_head", "semantic_head", "grid_head", "mask_iou_head")


@dataclass(frozen=True, slots=True)
class OldDetector:
    """The properties of an old detector that select the rules.

    Attributes:
        version: of MMDetection that wrote the file.
        classes: number of classes, including the background.
        two_stage, ssd, retina: the kind of detector.
        agnostic: one box is regressed for all classes.
        compat: apply the documented rules, including their faults.
    """

    version: str
    classes: int
    two_stage: bool
    ssd: bool
    retina: bool
    agnostic: bool
    compat: bool = False

    def before(self, version: str) -> bool:
        """True if the file is older than a version."""
        return self.version < version if self.compat else _numbers(self.version) < _numbers(version)

    def at_least(self, version: str) -> bool:
        """True if the file is of that version or a later one, compared as numbers."""
        return _numbers(self.version) >= _numbers(version)


def describe_detector(
    tensors: Mapping[str, Tensor], version: str, config: str, classes: int, compat: bool = False
) -> OldDetector:
    """Identifies the detector by the names of its tensors.

    The text of its config is only searched, not executed.
    """
    names = list(tensors)
    retina = any(name.startswith("bbox_head.retina_cls.") for name in names)
    plain = any(re.fullmatch(r"bbox_head\.cls_convs\.\d+\.weight", name) for name in names)
    cascade = any(re.match(r"bbox_head\.\d+\.", name) for name in names)
    return OldDetector(
        version=version,
        classes=classes,
        two_stage=any(name.startswith("rpn_head.") for name in names),
        ssd=plain and not retina,
        retina=retina,
        agnostic=cascade or re.search(r"reg_class_agnostic\s*=\s*True", config) is not None,
        compat=compat,
    )


def upgrade(tensors: Mapping[str, Tensor], old: OldDetector) -> dict[str, Tensor]:
    """All tensors, with new names and with the new order of classes.

    Raises:
        ValueError: if there are fewer than two classes (background and another one).
    """
    if old.classes < 2:
        raise ValueError(
            f"an old model of {old.classes} classes: the background counts as one, so there must "
            "be at least two"
        )
    return {_name(name, old): _value(name, value, tensors, old) for name, value in tensors.items()}


def _name(name: str, old: OldDetector) -> str:
    if old.two_stage and name.startswith(_ROI_HEADS):
        return "roi_head." + name
    if old.retina and (
        old.version <= "0.5.3" if old.compat else _numbers(old.version) <= (0, 5, 3)
    ):
        name = re.sub(r"(cls_convs|reg_convs)\.(\d+)\.(weight|bias)", r"\1.\2.conv.\3", name)
    return name


def _value(name: str, value: Tensor, tensors: Mapping[str, Tensor], old: OldDetector) -> Tensor:
    weight = name.endswith("weight")
    if _CLASSIFIER.fullmatch(name) or (old.ssd and _SSD_CLASSIFIER.fullmatch(name)):
        return _background_last(
            value, _groups(name, value, tensors, old), blind=old.compat and not weight
        )
    if _RPN_CLASSIFIER.fullmatch(name) and old.before("2.5.0"):
        return _background_last(
            value, _groups(name, value, tensors, old), blind=old.compat and not weight
        )
    box = re.search(r"(?:^|\.)(fc_reg|rpn_reg)\.(?:weight|bias)$", name)
    if (
        box
        and not old.agnostic
        and value.shape[0] % old.classes == 0
        and (box[1] == "fc_reg" or (old.compat and not old.before("2.5.0")))
    ):
        # one box for all classes, even if the config differs
        if not old.compat and value.shape[0] <= 4:
            return value
        rows = value.reshape(old.classes, -1, *value.shape[1:])
        return (rows[1:] if weight or not old.compat else rows[:-1]).reshape(-1, *value.shape[1:])
    if re.search(r"(?:^|\.)conv_logits\.(?:weight|bias)$", name):
        if not old.compat and value.shape[0] != old.classes:  # one mask for all classes
            return value
        return value[1:] if weight or not old.compat else value[: old.classes - 1]
    return value


def _groups(name: str, value: Tensor, tensors: Mapping[str, Tensor], old: OldDetector) -> int:
    """How many groups of classes, one for each anchor, the rows of a classifier have.

    0 if there is no background class.
    """
    rows = value.shape[0]
    classes = old.classes
    boxes = tensors.get(re.sub(r"_cls\b", "_reg", re.sub(r"\bcls_convs\b", "reg_convs", name)))
    if (
        boxes is not None
        and boxes.shape[0] % 4 == 0
        and not old.compat
        and not re.search(r"fc_cls|conv_cls", name)
    ):
        anchors = boxes.shape[0] // 4
        classes = 2 if "rpn_cls" in name else classes  # an object or none
        return anchors if rows == anchors * classes else 0
    return rows // classes if rows % classes == 0 else 0


def _background_last(value: Tensor, groups: int, blind: bool) -> Tensor:
    """Rotates the classes of each group by one; with ``blind`` it rotates all rows at once."""
    if blind:
        return torch.cat([value[1:], value[:1]])
    if groups == 0:
        return value
    rows = value.reshape(groups, -1, *value.shape[1:])
    return torch.cat([rows[:, 1:], rows[:, :1]], dim=1).reshape(value.shape)


def upgrade_ssd(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Upgrades an SSD from before 2.14: its extra layers become a neck, its predictors become
    sequences of one layer.
    """
    found = {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"backbone\.extra\.(\d+)\.(weight|bias)", name):
            name = f"neck.extra_layers.{int(match[1]) // 2}.{int(match[1]) % 2}.conv.{match[2]}"
        name = re.sub(r"^backbone\.l2_norm\.weight$", "neck.l2_norm.weight", name)
        name = re.sub(r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
        found[name] = value
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version: 2.10.0rc1+abc gives (2, 10, 0)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if not numbers:
        raise ValueError(f"{version!r} is not a version")
    return (*(int(number) for number in numbers[0].split(".")), 0, 0)[:3]
