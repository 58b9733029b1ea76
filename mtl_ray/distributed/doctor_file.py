"""Checks a cluster file, of ``ray up`` or of Kubernetes, before anything is started with it."""

import contextlib
import importlib
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mtl_ray.distributed import doctor_commands
from mtl_ray.distributed.doctor import Finding
from mtl_ray.distributed.doctor_kubernetes import examine_object

COMMAND_KEYS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
EXPLICIT = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
NIGHTLY = re.compile(r"ray-wheels|nightly|ray-\d+\.\d+\.\d+\.dev|:latest\b")
SECRET = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|"
    r"(?i:(secret_access_key|account_key|api_key|password|auth_token)[\"']?\s*[:=]\s*[\"']?[\w+/]{16})"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def examine_file(path: Path) -> Iterator[Finding]:
    """Checks a cluster file; each finding is one line.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is not YAML, or neither a file of ``ray up`` nor one of KubeRay.
    """
    text = path.read_text()
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise ValueError(
            f"{path} holds no mapping: a cluster file of `ray up` or of KubeRay is expected"
        )
    if "apiVersion" in documents[0]:
        yield from (finding for document in documents for finding in examine_object(document))
    elif "provider" in documents[0]:
        yield from _examine_ray_up(documents[0])
    else:
        raise ValueError(
            f"{path} is neither a cluster file of `ray up` (provider:) nor one of KubeRay "
            "(apiVersion:)"
        )
    yield from _examine_text(text)


def _examine_text(text: str) -> Iterator[Finding]:
    """Checks for all kinds of files."""
    bare = "\n".join(re.sub(r"(^|\s)#.*$", "", line) for line in text.splitlines())
    found = NIGHTLY.search(bare)
    yield Finding(
        "versions",
        found is not None,
        f"{found.group()} changes over time. Fix: pin a version"
        if found
        else "nothing that changes over time",
    )
    leak = SECRET.search(bare)
    fix = "the file contains a key. Fix: a role, a Secret, or the environment of the job"
    yield Finding("keys", leak is not None, fix if leak else "none in the file")
    header = [
        line.lstrip("# ")
        for line in text.splitlines()
        if re.match(r"^#\s+(ray|python3?|make) ", line)
    ]
    wrong = [problem for line in header for problem in doctor_commands.missing(line, {})]
    yield Finding(
        "header", bool(wrong), "; ".join(wrong) or f"{len(header)} commands at the top, all there"
    )
    yield _placeholders(bare)


def _placeholders(bare: str) -> Finding:
    """Lists the places to edit. They are not broken: the files are made to be edited."""
    places: dict[str, list[str]] = {}
    for number, line in enumerate(bare.splitlines(), 1):
        for word in re.findall(r"[^\s,{}\[\]\"']*\bEDIT\b[^\s,{}\[\]\"']*", line):
            places.setdefault(word, []).append(str(number))
    marks = "; ".join(f"{word} (line {', '.join(lines)})" for word, lines in places.items())
    return Finding(
        "to edit",
        False,
        f"before you start it, replace {marks}" if marks else "nothing is left to edit",
    )


def _examine_ray_up(config: dict[str, Any]) -> Iterator[Finding]:
    yield _schema(config)
    implied = [key for key in EXPLICIT if not config.get(key)]
    fix = (
        f"{', '.join(implied)} not given: Ray's own defaults install a nightly build and open "
        "the dashboard. Fix: write them out"
    )
    yield Finding(
        "explicit", bool(implied), fix if implied else "set-up and start commands are written out"
    )
    yield _head(config)
    yield _dashboard(_commands(config))
    yield _token(config)
    yield _spot(config)
    mounted = {
        _home(remote, config): local for remote, local in (config.get("file_mounts") or {}).items()
    }
    problems = [
        problem
        for command in _commands(config)
        for problem in doctor_commands.missing(command, mounted)
    ]
    problems += [
        f"file_mounts: {local} is not there" for local in mounted.values() if _absent(local)
    ]
    yield Finding(
        "commands",
        bool(problems),
        "; ".join(problems)
        or f"{len(_commands(config))} lines of shell, everything that they name exists",
    )


def _schema(config: dict[str, Any]) -> Finding:
    """Ray's own validation, which fills in the provider's defaults first.

    Then the node types, which Ray does not validate.
    """
    util = importlib.import_module("ray.autoscaler._private.util")
    for name in ("ray.autoscaler._private.util", "ray.autoscaler._private.docker"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            util.validate_config(util.prepare_config(json.loads(json.dumps(config))))
    except (
        Exception
    ) as error:  # of jsonschema, of click, or a KeyError of a default: any of them is the finding
        where = ".".join(map(str, getattr(error, "absolute_path", ())))
        return Finding(
            "schema",
            True,
            f"{where + ': ' if where else ''}{(getattr(error, 'message', '') or str(error)).splitlines()[0]}",  # noqa: E501
        )
    unknown = list(_unknown_machine_keys(config))
    return Finding("schema", bool(unknown), "; ".join(unknown) or "Ray's schema holds")


def _unknown_machine_keys(config: Mapping[str, Any]) -> Iterator[str]:
    """Keys of node_config that the cloud does not know, if its keys are known here."""
    kind = config["provider"]["type"]
    for name, node in (config.get("available_node_types") or {}).items():
        settings = node["node_config"]
        if kind == "aws":
            yield from (f"{name}: {problem}" for problem in _unknown_to_aws(settings))
        elif kind == "azure":
            given = settings.get("azure_arm_parameters", {})
            folder = Path(importlib.import_module("ray.autoscaler._private").__file__ or "").parent
            template = json.loads((folder / "_azure" / "azure-vm-template.json").read_text())
            yield from (
                f"{name}: azure_arm_parameters has no {key}"
                for key in given
                if key not in {*template["parameters"], "availability_zone"}
            )
            yield from (
                f"{name}: node_config has no {key} on Azure"
                for key in settings
                if key not in ("azure_arm_parameters", "tags")
            )
        elif kind == "gcp":
            yield from (
                f"{name}: node_config has no {key} on Google Cloud"
                for key in settings
                if key not in GCP_INSTANCE
            )


GCP_INSTANCE = set(
    """
    advancedMachineFeatures canIpForward confidentialInstanceConfig description disks displayDevice guestAccelerators hostname labels
    machineType metadata minCpuPlatform networkInterfaces networkPerformanceConfig params reservationAffinity resourcePolicies scheduling
    serviceAccounts shieldedInstanceConfig tags
    """.split()  # noqa: E501, SIM905
)
"""Fields of an instance that a request to the Compute Engine API may set."""


def _unknown_to_aws(settings: Mapping[str, Any]) -> Iterator[str]:
    """Validates with botocore (which comes with s3fs) the request RunInstances."""
    service = importlib.import_module("botocore.session").get_session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    given = {
        key: value for key, value in settings.items() if key not in ("SubnetIds", "SubnetId")
    } | {"MinCount": 1, "MaxCount": 1}
    report = importlib.import_module("botocore.validate").ParamValidator().validate(given, shape)
    if report.has_errors():
        yield report.generate_report().replace("\n", "; ")


def _head(config: Mapping[str, Any]) -> Finding:
    starts = [
        command
        for command in config.get("head_start_ray_commands") or []
        if re.search(r"ray start\b.*--head", command, re.DOTALL)
    ]
    node = (config.get("available_node_types") or {}).get(config.get("head_node_type"), {})
    resources = node.get("resources", {"CPU": 0})
    if (
        resources.get("CPU", 1)
        or resources.get("GPU")
        or not all("--num-cpus=0" in command for command in starts)
        or not starts
    ):
        return Finding(
            "head",
            True,
            "the head would run tasks and training. Fix: resources: {CPU: 0} and ray start --head "
            "--num-cpus=0",
        )
    return Finding("head", False, "runs no tasks and no training")


def _dashboard(commands: list[str]) -> Finding:
    """The dashboard runs programs for anyone who reaches it, so it must listen on loopback,
    behind ``ray dashboard`` or an ssh tunnel.
    """
    hosts = [
        re.search(r"--dashboard-host[= ](\S+)", command)
        for command in commands
        if re.search(r"ray start\b.*--head", command, re.DOTALL)
    ]
    open_to = [
        host.group(1) if host else "a default"
        for host in hosts
        if not host or host.group(1) not in LOOPBACK
    ]
    text = (
        f"ray start --head listens on {', '.join(open_to)}. Fix: --dashboard-host=127.0.0.1, "
        "and ray dashboard CLUSTER.yaml to reach it"
    )
    return Finding("dashboard", bool(open_to), text if open_to else "on loopback")


def _token(config: Mapping[str, Any]) -> Finding:
    without = [
        command
        for command in _commands(config)
        if "ray start" in command and "RAY_AUTH_MODE=token" not in command
    ]
    delivered = any(
        remote.endswith(".ray/auth_token") for remote in config.get("file_mounts") or {}
    )
    if without:
        return Finding(
            "token",
            True,
            f"`{without[0]}` starts Ray without a token. Fix: export RAY_AUTH_MODE=token in the "
            "same line",
        )
    if not delivered:
        return Finding(
            "token",
            True,
            "not delivered. Fix: file_mounts: {/home/USER/.ray/auth_token: ~/.ray/auth_token}",
        )
    return Finding("token", False, "required everywhere, and delivered")


def _spot(config: Mapping[str, Any]) -> Finding:
    """Whether spot machines have a watcher, and on-demand machines to fall back on."""
    nodes = config.get("available_node_types") or {}
    spot = {
        name
        for name, node in nodes.items()
        if re.search(r"spot|preemptible", json.dumps(node["node_config"]), re.IGNORECASE)
    }
    if not spot:
        return Finding("spot", False, "no spot machines")
    if not any(
        "spot_watcher.py" in command for command in config.get("worker_start_ray_commands") or []
    ):
        return Finding(
            "spot",
            True,
            f"{', '.join(spot)}: nothing reads the cloud's notice. Fix: start "
            "clusters/spot_watcher.py with the workers",
        )
    below = [
        name
        for name, node in nodes.items()
        if name not in spot and any(_replaces(node, nodes[one]) for one in spot)
    ]
    if not below:
        return Finding(
            "spot",
            True,
            f"{', '.join(spot)}: no on-demand machine of the same resources has a lower priority "
            "to fall back on",
        )
    return Finding(
        "spot", False, f"{', '.join(sorted(spot))} with a watcher, {', '.join(below)} after it"
    )


def _replaces(node: Mapping[str, Any], spot: Mapping[str, Any]) -> bool:
    return bool(
        node["resources"] == spot["resources"] and node.get("priority", 0) < spot.get("priority", 0)
    )


def _commands(config: Mapping[str, Any]) -> list[str]:
    own = [command for key in COMMAND_KEYS for command in config.get(key) or []]
    nodes = (config.get("available_node_types") or {}).values()
    return own + [
        command
        for node in nodes
        for key in ("initialization_commands", "worker_setup_commands")
        for command in node.get(key) or []
    ]


def _home(remote: str, config: Mapping[str, Any]) -> str:
    """A path on the machines, in the form that the commands use."""
    return remote.replace(f"/home/{config.get('auth', {}).get('ssh_user', 'ubuntu')}/", "~/")


def _absent(local: str) -> bool:
    """Whether a file of the checkout is missing.

    Other files are not checked: the token may not exist yet.
    """
    return not local.startswith(("~", "/")) and not (doctor_commands.ROOT / local).exists()
