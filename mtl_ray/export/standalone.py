"""A folder that predicts by itself: the model, ``predict.py``, and what to install.

It is for machines on which this project is not installed. ``predict.py`` is
``standalone_predict.py`` as it is.
"""

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mtl_ray.artifact import open_artifact
from mtl_ray.backends.config import short_name
from mtl_ray.backends.onnxruntime import OnnxRuntimeEngine
from mtl_ray.export import standalone_predict
from mtl_ray.inference.signature import Signature, read_signature
from mtl_ray.inputs.image import Canvas
from mtl_ray.storage import is_remote
from mtl_ray.tasks.detection.mask_decode import mask_frame_of
from mtl_ray.tasks.head_classes import head_vocabulary

PREDICT_FILE, ABOUT_FILE = "predict.py", "model.json"
ENGINE = "onnxruntime"
"""The type of the engine that ``predict.py`` runs."""
PACKAGES = ("numpy", ENGINE, "pillow")
_KNOWN = frozenset({"boxes", "scores", "classes", "masks"})
_README = """# {name}

    pip install -r requirements.txt
    python predict.py image.jpg --out predictions.json

`predictions.json` has the answer of each head: {heads}.
Boxes are x1, y1, x2, y2 in pixels of the image. A class map is also written as a PNG of class
indices beside the JSON file. `--score-thr` leaves out objects with a lower score (0.3).

In Python, `Model(".")(load_image("image.jpg"))` of `predict.py` keeps the model open and gives
arrays. `model.json` says how an image is put on the canvas of {width} x {height} pixels, and what
the classes are called. Made by mtl_ray from {source}.
"""


def standalone_engine(names: Sequence[str]) -> str | None:
    """The engine of the folder, of the engines that a command line names for a bundle: ONNX
    Runtime's only one. None, for the first of the bundle, if there is no such one or several.
    """
    found = {short_name(name) for name in names if name.partition(":")[0] == ENGINE}
    return found.pop() if len(found) == 1 else None


def write_standalone(bundle: str, folder: str, engine: str | None = None) -> tuple[str, ...]:
    """Writes the folder of a bundle.

    Args:
        bundle: its URI.
        folder: a local path, which must not exist or be empty.
        engine: one of ONNX Runtime's in the bundle; None for the first of them.

    Returns:
        The names of the files.

    Raises:
        ValueError: if the folder is not empty, the bundle does not have the engine, or
            ``predict.py`` cannot run this model.
    """
    target = check_folder(folder)
    opened = open_artifact(bundle, kind="bundle")
    signature = _of_onnxruntime(read_signature(opened.read("signature.json")), engine)
    (model_file,) = signature.files
    about = _about(signature, model_file)
    packages = "".join(f"{name}=={version(name)}\n" for name in PACKAGES)
    files = {
        model_file: opened.read(model_file),
        ABOUT_FILE: json.dumps(about, indent=1).encode(),
        PREDICT_FILE: Path(standalone_predict.__file__).read_bytes(),
        "requirements.txt": packages.encode(),
        "README.md": _readme(signature, bundle).encode(),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        for name, data in files.items():
            (whole / name).write_bytes(data)
        whole.replace(target)
    return tuple(files)


def check_folder(folder: str) -> Path:
    """The path of a new or empty local folder.

    Raises:
        ValueError: if it is remote, no folder, or not empty.
    """
    if is_remote(folder):
        raise ValueError(f"--standalone writes to a local folder, and {folder} is a URI")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{folder} is not empty. Fix: name a new folder for --standalone")
    return target


def _of_onnxruntime(signature: Signature, engine: str | None) -> Signature:
    """The signature of an engine that ``predict.py`` can run."""
    names = signature.engine_names if engine is None else (engine,)
    for name in names:
        found = signature.of_engine(name)
        if isinstance(found.engine, OnnxRuntimeEngine):
            return found
    raise ValueError(
        f"predict.py runs ONNX Runtime alone, and this is {', '.join(names)}. Fix: export the run "
        f"with --engine {ENGINE}"
    )


def _about(signature: Signature, model_file: str) -> dict[str, Any]:
    """The content of ``model.json``."""
    canvas = signature.canvas
    if not isinstance(canvas, Canvas):
        raise ValueError(
            f"predict.py reads images, and this model reads {canvas.input.noun}s. Fix: use "
            "jobs.predict or jobs.serve"
        )
    if signature.slide is not None:
        raise ValueError(
            "predict.py predicts whole images, and this model predicts class maps in windows "
            "(evaluate.slide). Fix: export the run with evaluate.slide=null, or use jobs.predict"
        )
    if strange := sorted({each.field for each in signature.outputs} - _KNOWN):
        fix = {"candidates": "export.layout=end2end", "logits": "export.maps=classes"}
        raise ValueError(
            f"predict.py does not decode {', '.join(strange)}. Fix: "
            f"{fix.get(strange[0], 'use jobs.predict')}"
        )
    heads = {}
    for name, head in signature.heads.items():
        own = head_vocabulary(head, signature.vocabulary)
        heads[name] = {
            "classes": list(own.classes[head.annotation]),
            "mask_frame": mask_frame_of(head),
        }
    return {
        "version": 1,
        "file": model_file,
        "inputs": {each.name: each.field for each in signature.inputs},
        "normalise": any(
            each.field == "image" and each.dtype == "float32" for each in signature.inputs
        ),
        "mean": list(signature.mean),
        "std": list(signature.std),
        "outputs": [
            {"name": each.name, "head": each.head, "field": each.field}
            for each in signature.outputs
        ],
        "canvas": {
            key: getattr(canvas, key) for key in ("kind", "kernel", "height", "width", "pad")
        },
        "heads": heads,
    }


def _readme(signature: Signature, source: str) -> str:
    canvas = signature.canvas
    assert isinstance(canvas, Canvas)
    name = source.rstrip("/").rpartition("/")[2]
    return _README.format(
        name=name,
        heads=", ".join(f"`{head}`" for head in signature.heads),
        height=canvas.height,
        width=canvas.width,
        source=f"the bundle {name}",
    )
