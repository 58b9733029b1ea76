"""Which other web sites may ask this server from a browser (https://fetch.spec.whatwg.org, section 3.2): none unless they are named."""

from collections.abc import Mapping, Sequence

MAX_AGE_S = 600


def cors_headers(origin: str, allowed: Sequence[str]) -> Mapping[str, str]:
    """What every answer to a page of ``origin`` carries; nothing where CORS is off."""
    if not allowed:
        return {}
    if "*" in allowed:
        return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
    if origin not in allowed:
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After", "Vary": "Origin"}


def preflight_headers(origin: str, allowed: Sequence[str], methods: Sequence[str]) -> Mapping[str, str]:
    """What the answer to a browser's question before a request carries besides."""
    if "*" not in allowed and origin not in allowed:
        return {}
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept",
        "Access-Control-Max-Age": str(MAX_AGE_S),
    }
