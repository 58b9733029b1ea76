"""Watches for the cloud's notice that this machine will be taken away, and calls ``ray
drain-node``, so that training saves a checkpoint.

The cluster files start it beside Ray on every worker. It needs only Python and the ``ray`` command,
and ends when its node is drained. Notices: AWS spot/instance-action (two minutes ahead), Google
Cloud instance/preempted (30 s), Azure scheduled events (Preempt, 30 s; also Terminate, Reboot and
Redeploy). A rebalance recommendation of AWS does not count: most have no consequence.

    python clusters/spot_watcher.py aws --address HEAD:6379
"""

import argparse
import fcntl
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

METADATA = {
    "aws": "http://169.254.169.254",
    "gcp": "http://metadata.google.internal",
    "azure": "http://169.254.169.254",
}
GCP_NOTICE_S = 30
GCP_WAIT_S = 60
FATAL_AZURE_EVENTS = ("Preempt", "Terminate", "Reboot", "Redeploy")
ANSWER_S = 130
"""Azure may take two minutes for the first answer, after which it schedules events for the
machine."""

Notice = Callable[[str], float | None]
"""Takes the URL of the metadata service; returns the seconds until the machine is taken away, or
None without a notice."""


def aws(url: str) -> float | None:
    """Requests a session token first (IMDSv2); 404 means that there is no notice."""
    token = _ask(
        f"{url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT"
    )
    answer = _ask(
        f"{url}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token or ""}
    )
    if answer is None:
        return None
    return _until(datetime.fromisoformat(json.loads(answer)["time"].replace("Z", "+00:00")))


def gcp(url: str) -> float | None:
    """Waits at the metadata service until the value changes."""
    path = f"{url}/computeMetadata/v1/instance/preempted"
    headers = {"Metadata-Flavor": "Google"}
    if (
        _ask(path, headers) != "TRUE"
        and _ask(f"{path}?wait_for_change=true&timeout_sec={GCP_WAIT_S}", headers) != "TRUE"
    ):
        return None
    return GCP_NOTICE_S


def azure(url: str) -> float | None:
    """Filters the events by the name of this machine: the service lists the events of all
    machines of a group.
    """
    name = _ask(
        f"{url}/metadata/instance/compute/name?api-version=2021-02-01&format=text",
        {"Metadata": "true"},
    )
    answer = _ask(f"{url}/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
    events = json.loads(answer)["Events"] if answer else []
    mine = [
        event
        for event in events
        if event["EventType"] in FATAL_AZURE_EVENTS and name in event["Resources"]
    ]
    # NotBefore is empty when an event has started.
    return min(
        (
            _until(parsedate_to_datetime(event["NotBefore"])) if event["NotBefore"] else 0.0
            for event in mine
        ),
        default=None,
    )


NOTICES: dict[str, Notice] = {"aws": aws, "gcp": gcp, "azure": azure}


def _until(moment: datetime) -> float:
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The answer; None for 404."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers, method=method), timeout=ANSWER_S
        ) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def wait_for_notice(notice: Notice, url: str, every_s: float) -> float:
    """Polls until there is a notice.

    An error of the metadata service is logged once, and polling goes on.
    """
    logged = ""
    while True:
        try:
            left_s = notice(url)
        except (OSError, ValueError, KeyError) as error:
            if str(error) != logged:
                _log(
                    f"{url} gives no valid answer ({type(error).__name__}: {error}); polling goes "
                    "on"
                )
            logged, left_s = str(error), None
        if left_s is not None:
            return left_s
        time.sleep(every_s)


def node_of_this_machine() -> str:
    """The Ray id of the one node that runs here.

    ``ray drain-node`` without an id joins the cluster as a driver first, which takes seconds that a
    notice may not have.

    Raises:
        RuntimeError: if there is none or more than one.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # the process has ended
            continue
        if words[0].endswith("/raylet"):
            found |= {
                word.removeprefix("--node_id=") for word in words if word.startswith("--node_id=")
            }
    if len(found) != 1:
        raise RuntimeError(
            f"{len(found)} nodes of Ray run on this machine instead of one; choose one with "
            "--node-id"
        )
    return found.pop()


def drain(address: str, node: str, cloud: str, left_s: float) -> bool:
    """Calls ``ray drain-node``, and repeats it while there is time, since the head may be busy
    or restarting.
    """
    end = time.monotonic() + max(left_s, 10)
    while True:
        command = [
            "ray",
            "drain-node",
            "--address",
            address,
            "--node-id",
            node,
            "--reason",
            "DRAIN_NODE_REASON_PREEMPTION",
        ]
        command += ["--reason-message", f"{cloud} takes this machine away"]
        command += ["--deadline-remaining-seconds", str(max(0, int(end - time.monotonic())))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            _log(f"node {node} is being drained, {left_s:.0f} s before its end")
            return True
        _log(f"ray drain-node ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        if time.monotonic() > end:
            return False
        time.sleep(1)


def _log(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """0 if the node was drained, or if another watcher runs; 1 if it could not be drained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cloud", choices=sorted(NOTICES))
    parser.add_argument("--address", required=True, metavar="HOST:PORT", help="of the head")
    parser.add_argument(
        "--node-id", help="of the node to drain (default: the one that runs on this machine)"
    )
    parser.add_argument(
        "--metadata",
        metavar="URL",
        help="of the metadata service (default: where the cloud has it)",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds between two polls (default: %(default)s)",
    )
    parser.add_argument(
        "--lock",
        type=Path,
        default=Path("/tmp/mtl_ray_spot_watcher.lock"),
        help="file that only one watcher holds",
    )
    options = parser.parse_args(argv)
    with options.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log("a watcher runs on this machine already")
            return 0
        _log(f"watching for a notice of {options.cloud}")
        left_s = wait_for_notice(
            NOTICES[options.cloud], options.metadata or METADATA[options.cloud], options.every
        )
        return (
            0
            if drain(
                options.address, options.node_id or node_of_this_machine(), options.cloud, left_s
            )
            else 1
        )


if __name__ == "__main__":
    sys.exit(main())
