"""A file of weights, changed, as another file."""

from collections.abc import Callable

from mtl_ray.weights.edit import Edited
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
