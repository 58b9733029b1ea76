"""What lies beside the weights of a model of Hugging Face: ``config.json`` with the names of its
classes, ``preprocessor_config.json`` with the normalisation of its images, and several files of
weights.
"""

import re
from typing import Any, NamedTuple

from mtl_ray import storage
from mtl_ray.sources.json_values import parse_json

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
ENDING = ".safetensors"
_MOST_BYTES = 1 << 22
_MOST_CLASSES = 100_000
_LEAST = 1e-6
"""Of numbers that something is divided by."""
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_UNNAMED = re.compile(r"LABEL_\d+")
"""The names that transformers gives to classes without names."""


class ModelDescription(NamedTuple):
    """What the files beside weights say; None where they do not say it.

    Attributes:
        classes: of the network, in its order; names may repeat.
        mean, std: red, green, blue, in the scale of 0 to 255.
    """

    classes: tuple[str, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def weight_files(uri: str) -> list[str] | None:
    """The files of weights in the folder of a model; None if the URI is none.

    Raises:
        ValueError: if there are none, or it is unclear which belong to the model.
    """
    if not storage.exists(storage.join(uri, CONFIG)):
        return None
    found = [name for name in storage.names(uri) if name.endswith(ENDING)]
    if "model.safetensors" in found:
        found = ["model.safetensors"]
    shards = [match for match in map(_SHARD.fullmatch, found) if match]
    if shards:
        found = [match[0] for match in shards]
        if [int(match[1]) for match in shards] != list(range(1, int(shards[0][2]) + 1)):
            raise ValueError(f"{uri}: parts of its weights are missing, or are of two models")
    elif len(found) != 1:
        raise ValueError(
            f"{uri} has {len(found)} files of safetensors beside its {CONFIG}. Fix: name the file"
        )
    return [storage.join(uri, name) for name in found]


def read_model_description(uri: str) -> ModelDescription:
    """What is said in the folder of a model, or beside a file of weights.

    Raises:
        ValueError: naming the file, if one of them is not as transformers writes it.
    """
    folder = (
        uri
        if storage.exists(storage.join(uri, CONFIG))
        else storage.absolute(uri).rpartition("/")[0]
    )
    classes = mean = std = None
    uri = storage.join(folder, CONFIG)
    try:
        classes = _classes(_read(uri))
        uri = storage.join(folder, PREPROCESSOR)
        mean, std = _normalisation(_read(uri)) or (None, None)
    except ValueError as error:
        raise ValueError(f"{uri}: {error}. Fix: correct it, or remove it") from error
    return ModelDescription(classes, mean, std)


def _read(uri: str) -> dict[str, Any]:
    """The object in a file of JSON; empty if there is no file."""
    if not storage.exists(uri):
        return {}
    size = storage.size(uri)
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes, which no such file of transformers has")
    try:
        content = parse_json(storage.read(uri))
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def _classes(config: dict[str, Any]) -> tuple[str, ...] | None:
    """The names in ``id2label``; None if there are none but the numbered ones of transformers."""
    labels = config.get("id2label")
    if labels is None:
        return None
    if not isinstance(labels, dict) or not 0 < len(labels) <= _MOST_CLASSES:
        raise ValueError("id2label is no object with a name for each class")
    names = [labels.get(str(place)) for place in range(len(labels))]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"id2label does not name the classes 0 to {len(labels) - 1}")
    found = tuple(str(name) for name in names)
    return None if all(_UNNAMED.fullmatch(name) for name in found) else found


def _normalisation(
    preprocessor: dict[str, Any],
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of bytes, which are first multiplied and then normalised."""
    if not preprocessor:
        return None
    kind = str(preprocessor.get("image_processor_type", ""))
    factor = 1.0
    if _switch(preprocessor, "do_rescale", True):
        (factor,) = _numbers([preprocessor.get("rescale_factor", 1 / 255)], "rescale_factor", 1)
    mean, std = [0.0] * 3, [1.0] * 3
    if _switch(preprocessor, "do_normalize", not kind.startswith("RTDetr")):
        mean = _numbers(preprocessor.get("image_mean"), "image_mean", 3)
        std = _numbers(preprocessor.get("image_std"), "image_std", 3)
    if factor < _LEAST or min(std) < _LEAST * max(factor, 1):
        raise ValueError(f"rescale_factor and image_std are not all above {_LEAST}")
    return tuple(round(each / factor, 6) for each in mean), tuple(
        round(each / factor, 6) for each in std
    )


def _switch(preprocessor: dict[str, Any], name: str, default: bool) -> bool:
    value = preprocessor.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def _numbers(value: Any, name: str, count: int) -> list[float]:
    numbers = value if isinstance(value, list) else []
    plain = [each for each in numbers if type(each) in (int, float) and abs(each) < 1e9]
    if len(numbers) != count or len(plain) != count:
        raise ValueError(f"{name} is not {count} plain number{'s' if count > 1 else ''}")
    return [float(each) for each in plain]
