"""Predicts with the model in this folder: python predict.py IMAGE... [--out FILE.json].

Needs numpy, Pillow and onnxruntime alone. In Python: ``Model(folder)(load_image("a.jpg"))``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

Array = np.ndarray[Any, Any]


def load_image(path: str | Path) -> Array:
    """(H, W, 3) uint8 RGB as a viewer shows it; of 16 bits the upper eight."""
    with Image.open(path) as opened:
        shown = ImageOps.exif_transpose(opened)
        if shown.mode.startswith("I"):
            grey = np.asarray(shown).astype(np.int64).clip(0, 65535) >> 8
            return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
        return np.array(shown.convert("RGB"), np.uint8)


class Frame:
    """Where an image lies on the canvas: (y, x) on the canvas = (y, x) * scale + offset."""

    def __init__(self, size: Any, canvas: dict[str, Any]) -> None:
        self.size = np.array(size)
        self.canvas = np.array([canvas["height"], canvas["width"]])
        self.shown, self.valid, ratios = self.size, self.canvas, self.canvas / self.size
        if canvas["kind"] == "letterbox":
            self.valid = np.maximum(1, np.rint(self.size * ratios.min())).astype(int)
        elif canvas["kind"] == "crop":
            self.shown = np.maximum(1, np.rint(self.canvas / ratios.max())).astype(int)
        self.first, self.scale = (self.size - self.shown) // 2, self.valid / self.shown
        self.offset = -self.first * self.scale

    def place(self, image: Array, canvas: dict[str, Any]) -> Array:
        """The image on the canvas (H, W, 3) uint8."""
        (top, left), (bottom, right) = self.first, self.first + self.shown
        resize = resized if canvas["kernel"] == "area" else bilinear
        part = resize(image[top:bottom, left:right], *self.valid)
        beside = [(0, int(n)) for n in self.canvas - self.valid]
        return np.pad(part, [*beside, (0, 0)], constant_values=canvas["pad"])

    def boxes(self, boxes: Array, dtype: Any = np.float32) -> Array:
        """(N, 4) xyxy canvas pixels -> image pixels, not clipped."""
        scale, offset = (np.tile(each[::-1], 2).astype(dtype) for each in (self.scale, self.offset))
        return (boxes.astype(dtype) - offset) / scale

    def classes(self, classes: Array) -> Array:
        """(H, W) canvas -> (height, width) of the image, nearest neighbour."""
        cells = [np.clip(self.centres(i).astype(int), 0, self.valid[i] - 1) for i in (0, 1)]
        return classes[np.ix_(*cells)]

    def centres(self, axis: int) -> Array:
        """Where the centres of the image's pixels lie on the canvas."""
        return (np.arange(self.size[axis]) + 0.5) * self.scale[axis] + self.offset[axis]


def bilinear(image: Array, height: int, width: int) -> Array:
    """``cv2.resize`` with INTER_LINEAR of (h, w, 3) uint8, in its integers, bit for bit."""
    left, right, a, b = _weights(image.shape[1], width, edge=True)
    upper, lower, c, d = _weights(image.shape[0], height, edge=False)
    image = image.astype(np.int32)
    across = (image[:, left] * a[:, None] + image[:, right] * b[:, None]) >> 4
    down = (across[upper] * c[:, None, None] >> 16) + (across[lower] * d[:, None, None] >> 16)
    return ((down + 2) >> 2).astype(np.uint8)


def _weights(source: int, target: int, edge: bool) -> tuple[Array, Array, Array, Array]:
    """Two source pixels of each target pixel, and their weights in 1 / 2048."""
    at = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(at).astype(int)
    share = at - first.astype(np.float32)
    if edge:  # beyond the border all weight is on the last pixel
        share[(first < 0) | (first >= source - 1)] = 0
    weights = [np.rint(each * np.float32(2048)).astype(np.int32) for each in (1 - share, share)]
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), *weights


def resized(image: Array, height: int, width: int) -> Array:
    """Bilinear where the image grows, the mean of bilinear samples where it shrinks."""
    rows, columns = -(-image.shape[0] // height), -(-image.shape[1] // width)
    sampled = bilinear(image, rows * height, columns * width)
    cells = sampled.reshape(height, rows, width, columns, 3).sum((1, 3), dtype=np.int32)
    if rows == columns == 2:
        return ((cells + 2) >> 2).astype(np.uint8)
    return np.rint(cells.astype(np.float32) * np.float32(1 / (rows * columns))).astype(np.uint8)


def _blend(cells: int, at: Array) -> Array:
    """(n, cells): the weights of linear interpolation at positions (n,)."""
    at = np.clip(at, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells)))


def _mask(mask: Array, box: Array, frame: Frame, of: str) -> Array:
    """Probabilities (h, w) over a box xyxy, or over the canvas -> (height, width) bool."""
    found, inside, weights = np.zeros(frame.size, np.bool_), [], []
    for axis, cells in enumerate(mask.shape):
        side, valid, at = frame.canvas[axis], frame.valid[axis], frame.centres(axis)
        upsample = _blend(cells, (np.arange(side) + 0.5) * cells / side - 0.5)
        if of == "canvas":
            inside.append(np.flatnonzero((at > 0) & (at < valid)))
            weights.append(_blend(side, at[inside[axis]] - 0.5) @ upsample)
            continue
        at, low, high = np.arange(frame.size[axis]) + 0.5, box[1 - axis], box[3 - axis]
        inside.append(np.flatnonzero((at >= low) & (at <= high)))
        weights.append(_blend(cells + 2, (at[inside[axis]] - low) / (high - low) * cells + 0.5))
    kept = np.clip(mask.astype(np.float64), 1e-7, 1 - 1e-7)
    values = np.log(kept / (1 - kept)) if of == "canvas" else np.pad(mask, 1) - 0.5
    found[np.ix_(*inside)] = weights[0] @ values @ weights[1].T >= 0
    return found


class Model:
    """The model of a folder. A call gives the answer of each head as arrays."""

    def __init__(self, folder: str | Path) -> None:
        self.about = json.loads((Path(folder) / "model.json").read_text())
        path = str(Path(folder) / self.about["file"])
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, image: Array) -> dict[str, dict[str, Array]]:
        """By head: boxes (N, 4) xyxy, scores, classes, masks; or classes (H, W); or scores (C,)."""
        canvas = self.about["canvas"]
        frame = Frame(image.shape[:2], canvas)
        planes = frame.place(image, canvas).transpose(2, 0, 1)[None]
        if self.about["normalise"]:
            mean, std = (np.array(self.about[key], np.float32) for key in ("mean", "std"))
            planes = (planes.astype(np.float32) - mean[:, None, None]) / std[:, None, None]
        given = {"image": planes, "valid_hw": frame.valid[None].astype(np.int32)}
        feed = {name: given[field] for name, field in self.about["inputs"].items()}
        heads: dict[str, dict[str, Array]] = {name: {} for name in self.about["heads"]}
        values = self.session.run([each["name"] for each in self.about["outputs"]], feed)
        for each, value in zip(self.about["outputs"], values, strict=True):
            heads[each["head"]][each["field"]] = value[0]
        return {name: self._decoded(name, each, frame) for name, each in heads.items()}

    def _decoded(self, name: str, arrays: dict[str, Array], frame: Frame) -> dict[str, Array]:
        """From canvas pixels to those of the image; what has no score or no area is left out."""
        if "boxes" not in arrays:
            return {"classes": frame.classes(arrays["classes"])} if "classes" in arrays else arrays
        limit = np.tile(frame.size[::-1], 2).astype(np.float32)
        boxes = np.clip(frame.boxes(arrays["boxes"]), 0, limit)
        kept = (arrays["scores"] > 0) & np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        order = np.argsort(-arrays["scores"], kind="stable")
        order = order[kept[order]]
        found = {key: values[order] for key, values in {**arrays, "boxes": boxes}.items()}
        if "masks" in found:
            whole, of = frame.boxes(arrays["boxes"][order], float), self.about["heads"][name]
            pairs = zip(found["masks"], whole, strict=True)
            found["masks"] = [_mask(*pair, frame, of["mask_frame"]) for pair in pairs]
        return found

    def to_json(self, name: str, found: dict[str, Array], score_threshold: float) -> Any:
        """A list of objects; or of each class its score, or its share of the image."""
        names = self.about["heads"][name]["classes"]
        if "boxes" not in found and "scores" in found:
            return dict(zip(names, found["scores"].tolist(), strict=True))
        if "boxes" not in found:
            counts = np.bincount(found["classes"].ravel(), minlength=len(names))
            return dict(zip(names, (counts / found["classes"].size).tolist(), strict=True))
        objects = []
        for i in np.flatnonzero(found["scores"] >= score_threshold):
            one = {key: values[i].tolist() for key, values in found.items() if key != "masks"}
            if "masks" in found:  # COCO's run lengths, column by column
                flat = found["masks"][i].T.ravel()
                ends = [0, *np.flatnonzero(np.diff(flat, prepend=False)), flat.size]
                one["mask"] = {"size": found["masks"][i].shape, "counts": np.diff(ends).tolist()}
            objects.append({**one, "class_name": names[one["classes"]]})
        return objects


def main() -> None:
    """Answers as JSON; a class map becomes IMAGE.HEAD.png beside the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("predictions.json"))
    parser.add_argument("--score-thr", type=float, default=0.3)
    args = parser.parse_args()
    model, answers = Model(Path(__file__).parent), []
    for path in args.images:
        found: dict[str, object] = {}
        answers.append({"file": str(path), "heads": found})
        for name, each in model(load_image(path)).items():
            found[name] = model.to_json(name, each, args.score_thr)
            if "classes" in each and "boxes" not in each:
                beside = args.out.with_name(f"{path.stem}.{name}.png")
                Image.fromarray(each["classes"].astype(np.uint8)).save(beside)
    print(f"wrote {args.out.write_text(json.dumps(answers, indent=1))} characters to {args.out}")


if __name__ == "__main__":
    main()
