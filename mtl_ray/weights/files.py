"""A file of weights, changed, as another file."""

from collections.abc import Callable

from mtl_ray.weights.edit import Edited
from mtl_ray.weights.foreign import modernised
from mtl_ray.weights.read import read_weights
from mtl_ray.weights.weights import Weights
from mtl_ray.weights.write import check_ending, write_weights


def change(source: str, to: str, edit: Callable[[Weights], Edited], *, key: str | None = None) -> Edited:
    """Reads weights, changes them and writes them; in a .pth under the key that they had, with what stood beside them.

    Args:
        source: any URI that ``read_weights`` reads.
        to: the new file; its ending says the format.
        edit: what is done.
        key: the top-level key of the weights, instead of looking for it.

    Raises:
        ValueError: if there are no weights, the ending of ``to`` is unknown, or the edit is refused.
    """
    check_ending(to)
    edited = edit(read_weights(source, key))
    write_weights(to, edited.weights.tensors, key=edited.weights.key, rest=edited.weights.rest)
    return edited


def upgrade_file(
    source: str, to: str, classes: int = 81, version: str | None = None, *, key: str | None = None, compat: bool = False
) -> tuple[str, ...]:
    """Writes a detector of MMDetection 1.x as 2.x would have it, in the names of OpenMMLab, with what stood beside its weights.

    Args:
        source: any URI that ``read_weights`` reads.
        to: the new file.
        classes: of the old model, with the background.
        version: of MMDetection that wrote the file, where the file does not say it.
        key: the top-level key of the weights, instead of looking for it.
        compat: by the rules of MMDetection's tool, faults and all, whatever the version.

    Returns:
        A sentence for each change; none if there was nothing to do, and the file is written as it was.
    """
    weights = read_weights(source, key)
    tensors, notes = modernised(weights, classes, version, compat=compat)
    check_ending(to)
    write_weights(to, tensors, key=weights.key, rest=weights.rest)
    return notes
