"""The doctor checks every machine of a running cluster; a finding names the machine."""

from mtl_ray.distributed.doctor import Finding
from mtl_ray.distributed.doctor_nodes import MachineReport, _look, _of_one, _token, _versions

VERSIONS = dict.fromkeys(
    ("python", "mtl_ray", "ray", "torch", "torchvision", "pyarrow", "numpy", "fsspec"), "1.0"
)
NODE = {"NodeManagerAddress": "192.0.2.1", "NodeID": "abcdef123", "Resources": {"CPU": 1.0}}


def test_a_broken_storage_is_reported(tmp_path):
    (tmp_path / "file").write_text("no folder")
    found = {
        finding.subject: finding
        for finding in _look("127.0.0.1:1", str(tmp_path / "file" / "runs"), None).findings
    }
    assert found["storage"].broken
    found = {
        finding.subject: finding
        for finding in _look(
            "127.0.0.1:1", str(tmp_path), str(tmp_path / "of-another-machine")
        ).findings
    }
    assert (found["storage"].broken, found["shared"].broken) == (False, True)
    assert "that all machines mount" in found["shared"].text


def test_a_head_that_cannot_be_reached_is_reported():
    assert "refused" in _look("127.0.0.1:1", None, None).head_port


def seen(**changes: object) -> MachineReport:
    usual = {
        "versions": VERSIONS,
        "auth_mode": "token",
        "shm_bytes": 2**33,
        "clock_s": 0.0,
        "findings": [Finding("gpu", False, "none")],
    }
    return MachineReport(**{**usual, **changes})  # type: ignore[arg-type]


def wrong(node: dict, one: MachineReport, skew_s: float = 0.0) -> list[str]:
    return [
        f"{finding.subject}: {finding.text}"
        for finding in _of_one("a", node, one, skew_s)
        if finding.broken
    ]


def test_what_is_wrong_with_one_machine_is_named():
    assert wrong(NODE, seen()) == []
    assert "--shm-size" in wrong(NODE, seen(shm_bytes=2**26))[0]
    assert "a clock: -9.0 s from here" in wrong(NODE, seen(), -9.0)[0]
    assert "on all ports" in wrong(NODE, seen(head_port="timed out"))[0]
    assert (
        "counts 1 GPUs, but torch sees none" in wrong(NODE | {"Resources": {"GPU": 1.0}}, seen())[0]
    )


def test_machines_that_differ_are_named():
    assert not _versions({"a": seen(), "b": seen()}).broken
    found = _versions({"a": seen(), "b": seen(versions=VERSIONS | {"torch": "2.0"})})
    assert (found.broken, "torch is 1.0 on a, 2.0 on b" in found.text) == (True, True)
    assert _token({"a": seen(), "b": seen(auth_mode="not set")}).broken
    assert not _token({"a": seen()}).broken
