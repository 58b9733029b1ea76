"""Models with several versions: which one answers a request."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mtl_ray.serving.config import ServedModel, version_key
from mtl_ray.serving.reply import RequestError, quoted


@dataclass(frozen=True, kw_only=True)
class RouteChoice:
    """What answers a request.

    Attributes:
        key: of the predictor.
        model: name of the model.
        version: of the model; empty if it has only one.
    """

    key: str
    model: str
    version: str


class Routes:
    """Names of models, and the versions behind them.

    Args:
        keys: of the predictors.
        models: ``serve.models``.
    """

    def __init__(self, keys: Iterable[str], models: Mapping[str, str | ServedModel]) -> None:
        self.shares = {
            name: model.shares for name, model in models.items() if isinstance(model, ServedModel)
        }
        behind = {version_key(name, each) for name, all_ in self.shares.items() for each in all_}
        self.names = (*self.shares, *(key for key in keys if key not in behind))

    def choose(self, model: str, version: str | None, request_id: str) -> RouteChoice:
        """The predictor for a request; the same for the same id as long as the weights stay.

        Raises:
            RequestError: 404 if there is no such model or version.
        """
        if model not in self.names:
            raise RequestError(
                404, f"there is no model {quoted(model)}; there is {_list(self.names)}"
            )
        shares = self.shares.get(model)
        if shares is None:
            if version is not None:
                raise RequestError(404, f"the model {model!r} has no versions")
            return RouteChoice(key=model, model=model, version="")
        if version is None:
            version = _by_share(shares, request_id)
        elif version not in shares:
            raise RequestError(
                404,
                f"the model {model!r} has no version {quoted(version)}; it has {_list(shares)}",
            )
        return RouteChoice(key=version_key(model, version), model=model, version=version)

    def versions_of(self, model: str) -> dict[str, str]:
        """The keys of the predictors of a model, by version; the version is empty if there is only
        one.
        """
        shares = self.shares.get(model)
        return {each: version_key(model, each) for each in shares} if shares else {"": model}

    def place_of(self, key: str) -> tuple[str, str]:
        """Model and version of the predictor with a key; the version is empty if there is only
        one.
        """
        for model in self.shares:
            for version, its in self.versions_of(model).items():
                if its == key:
                    return model, version
        return key, ""

    def main_key(self, model: str) -> str:
        """The key of the version with the largest share."""
        shares = self.shares.get(model)
        return version_key(model, max(shares, key=lambda each: shares[each])) if shares else model


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _by_share(shares: Mapping[str, float], request_id: str) -> str:
    """The version whose part of [0, 1) holds the hash of the id."""
    digest = hashlib.sha256(request_id.encode()).digest()
    place = int.from_bytes(digest[:7], "big") / 2**56
    for version, share in shares.items():
        if place < share:
            return version
        place -= share
    return max(shares, key=lambda each: shares[each])  # the sum was a little below 1
