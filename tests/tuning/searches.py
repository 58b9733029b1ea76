"""Searches over tiny runs."""

import yaml

from tests.training.tiny import values

LR = "schedule.optimizer.lr"


def text_of(splits, folder, tune, **changes):
    """The config of a search over a run whose schedule is changed."""
    content = values(splits, folder)
    content["schedule"] |= changes
    return yaml.safe_dump(content | {"tune": tune})
