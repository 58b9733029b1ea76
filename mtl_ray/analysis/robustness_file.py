"""Reads results of MMDetection's test_robustness as cells, to report what its robustness_eval
reports.
"""

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from statistics import fmean
from typing import Any

from mtl_ray import storage
from mtl_ray.analysis.corruptions import ALL, SEVERITIES
from mtl_ray.analysis.robustness import CLEAN, Cell, CellResult
from mtl_ray.evaluation.coco_file import read_json
from mtl_ray.pickles.unpickle import load_pickle

SUFFIXES = (".pkl", ".pickle", ".json")


def read_robustness(uri: str) -> dict[Cell, CellResult]:
    """The cells of a results file: a mapping of corruptions to severities to figures.

    Args:
        uri: a pickle (no code in it is executed) or JSON. Figures are numbers by name, mappings of
            such (``bbox`` with ``AP``), or a list of one mapping a class with its ``ap``, of which
            the mean is taken. Severity 0 is the clean images, the only ones of ``None``. COCO's -1
            means that there was no object to find, and is unknown here.

    Raises:
        ValueError: if it is something else, or nothing was measured on clean images, of which all
            is a share.
        FileNotFoundError: if there is none.
    """
    content = read_json(uri) if uri.endswith(".json") else load_pickle(storage.read(uri))
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(found, Mapping) for found in content.values())
    ):
        raise ValueError(
            f"{uri} has no results of corruptions by severity: test_robustness writes those to "
            "..._results.pkl"
        )
    cells: dict[Cell, CellResult] = {}
    for word, by_severity in content.items():
        if word not in (*ALL, "None"):
            raise ValueError(f"{uri}: there is no corruption {word!r}; there are {', '.join(ALL)}")
        for severity, found in by_severity.items():
            if str(severity) not in map(str, (0, *SEVERITIES)):
                raise ValueError(
                    f"{uri}: {word} has a severity {severity!r}; severities are 0 (clean) to 5"
                )
            if word == "None" and int(severity):
                raise ValueError(f"{uri}: no corruption has a severity {severity}")
            cell = Cell(word, int(severity)) if int(severity) else CLEAN
            cells.setdefault(cell, _outcome(uri, found))
    if CLEAN not in cells:
        raise ValueError(
            f"{uri} has no severity 0: without figures of clean images there is nothing to compare "
            "with"
        )
    known = cells[CLEAN].figures.keys()
    if any(outcome.figures.keys() != known for outcome in cells.values()):
        raise ValueError(f"{uri}: not all severities have the same figures")
    return {CLEAN: cells.pop(CLEAN), **cells}


def _outcome(uri: str, found: Any) -> CellResult:
    figures = dict(_numbers(found))
    if not figures:
        raise ValueError(f"{uri}: a severity has no figures")
    main = next(
        (name for wanted in ("mAP", "AP") for name in figures if name.endswith(wanted)),
        next(iter(figures)),
    )
    return CellResult(figures=figures, main=main, samples=0, bad=())


def _numbers(found: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(found, Mapping):
        for name, value in found.items():
            if isinstance(value, Real):
                yield f"{prefix}{name}", math.nan if value == -1 else float(value)
            else:
                yield from _numbers(value, f"{prefix}{name}/")
    elif (
        isinstance(found, list | tuple)
        and found
        and all(isinstance(entry, Mapping) and "ap" in entry for entry in found)
    ):
        yield f"{prefix}AP", fmean(float(entry["ap"]) for entry in found)
