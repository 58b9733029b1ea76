"""Which figures of a metric people are shown. KITTI's metric has 180 of them; a terminal and the
curves of a run have a dozen, and the files have all.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Brief(Protocol):
    """A task or a metric of which people are shown only some figures."""

    def is_brief(self, entry: str) -> bool:
        """Whether an entry of ``Metric.result`` is shown."""
        ...


def brief(owners: Mapping[str, object], names: Iterable[str]) -> list[str]:
    """Those of some figures that are shown.

    Args:
        owners: the task or the metric of each head.
        names: HEAD/ENTRY; others are shown.
    """

    def shown(name: str) -> bool:
        head, _, entry = name.partition("/")
        owner = owners.get(head)
        return not isinstance(owner, Brief) or owner.is_brief(entry)

    return [name for name in names if shown(name)]
