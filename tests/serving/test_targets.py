"""What the command line names, and the config that comes of it."""

from pathlib import Path

import pytest

from mtl_ray.serving.config import read_targets


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "serve.yaml"
    path.write_text(
        "model: {this: is not read}\nserve:\n  models: {seg: s3://bucket/seg}\n  port: 9000\n  "
        "replicas: 2\n"
    )
    return str(path)


def test_bundles_are_called_by_their_last_part_or_as_told() -> None:
    config = read_targets(["bundles/digits/", "other=s3://bucket/17", "/data/a.b"], [])
    assert config.models == {
        "digits": "bundles/digits/",
        "other": "s3://bucket/17",
        "a.b": "/data/a.b",
    }
    assert config.host == "127.0.0.1"


def test_files_and_bundles_join_and_the_command_line_is_last(file: str) -> None:
    config = read_targets([file, "bundles/digits"], ["serve.port=9001"])
    assert config.models == {"seg": "s3://bucket/seg", "digits": "bundles/digits"}
    assert (config.port, config.replicas) == (9001, 2)


def test_a_bundle_does_not_take_the_name_of_another(file: str) -> None:
    with pytest.raises(ValueError, match="two models are called 'seg'"):
        read_targets([file, "seg=elsewhere"], [])


@pytest.mark.parametrize(
    ("targets", "overrides", "part"),
    [
        (["a/x", "b/x"], [], "two models are called 'x'"),
        (["x=a", "x=b"], [], "two models are called 'x'"),
        ([], ["serve.port=1"], "there is no model to serve"),
        (["bundles/a b"], [], "cannot be the name"),
        (["a"], ["serve.port=99999999"], "port"),
        (["a"], ["serve.prot=1"], "prot"),
        (["a"], ["model.x=1"], "model"),
    ],
)
def test_mistakes(targets: list[str], overrides: list[str], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        read_targets(targets, overrides)
