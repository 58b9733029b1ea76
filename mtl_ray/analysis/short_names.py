"""Short, distinct names for addresses, for legends and tables."""

from collections.abc import Sequence


def short_names(uris: Sequence[str]) -> list[str]:
    """The ends of paths or URIs, with as many parts as are needed to distinguish them."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    longest = max(map(len, parts), default=1)
    depth = next(
        (
            count
            for count in range(1, longest)
            if len({tuple(part[-count:]) for part in parts}) == len(set(uris))
        ),
        longest,
    )
    return ["/".join(part[-depth:]) for part in parts]
