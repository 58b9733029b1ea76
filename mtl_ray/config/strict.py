"""The one pydantic configuration that every config dataclass of the project uses."""

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""Unknown keys are errors, and the string under a field becomes its description in the JSON Schema.

Use it as ``@dataclass(frozen=True, kw_only=True, config=STRICT)`` with ``pydantic.dataclasses.dataclass``: a standard
dataclass would ignore unknown keys without a word.
"""
