"""Checks an object of KubeRay before it is applied."""

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mtl_ray.distributed import doctor_commands
from mtl_ray.distributed.doctor import Finding
from mtl_ray.distributed.kubernetes_schema import (
    ClusterSpec,
    PodSpec,
    RayCluster,
    RayJob,
    RayService,
)

KINDS = {kind.__name__: kind for kind in (RayCluster, RayJob, RayService)}
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
RAYS_OWN_DRAIN_S = 30


def examine_object(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks one object. Of an object that is not KubeRay's only the kind is reported."""
    kind = KINDS.get(str(document.get("kind")))
    if kind is None:
        foreign = not str(document.get("apiVersion")).startswith("ray.io/")
        yield Finding(
            "object",
            not foreign,
            f"kind {document.get('kind')} "
            + ("is not checked" if foreign else f"is none of {', '.join(KINDS)}"),
        )
        return
    try:
        found = kind.model_validate(dict(document))
    except ValidationError as error:
        yield Finding(
            "schema",
            True,
            "; ".join(_sentence(one, kind) for one in error.errors(include_url=False)),
        )
        return
    yield Finding(
        "schema", False, f"{kind.__name__} {found.metadata.name}: the fields agree with ray.io/v1"
    )
    if isinstance(found, RayCluster):
        yield from _examine_cluster(found.spec)
    elif isinstance(found, RayJob):
        yield from _examine_cluster(found.spec.ray_cluster_spec)
        problems = list(doctor_commands.missing(found.spec.entrypoint, {}))
        yield Finding(
            "commands",
            bool(problems),
            "; ".join(problems) or "everything that the entrypoint names exists",
        )
        yield _runtime_env(found.spec.runtime_env_yaml)
    else:
        yield from _examine_cluster(found.spec.ray_cluster_config)
        yield _serve_config(found.spec.serve_config_v2)


def _sentence(problem: Any, kind: type[BaseModel]) -> str:
    where = ".".join(
        str(part)
        for part in problem["loc"]
        if part not in ("str", "int", "float") and "constrained" not in str(part)
    )
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}"
    near = difflib.get_close_matches(str(problem["loc"][-1]), _keys(kind, problem["loc"][:-1]), n=1)
    return f"unknown key {where}" + (f"; did you mean {near[0]}?" if near else "")


def _keys(kind: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys that are allowed at a place."""
    schema = kind.model_json_schema(by_alias=True)
    here = schema
    for part in place:
        here = _resolved(here, schema)
        here = (
            here.get("items", {})
            if isinstance(part, int)
            else here.get("properties", {}).get(part, {})
        )
    return list(_resolved(here, schema).get("properties", {}))


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """The node with its reference resolved.

    If several forms are allowed, the one that is a mapping.
    """
    for form in node.get("anyOf", ()):
        if "$ref" in form:
            node = form
    return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node


def _examine_cluster(spec: ClusterSpec) -> Iterator[Finding]:
    installed = metadata.version("ray")
    other = spec.ray_version != installed
    yield Finding(
        "ray",
        other,
        f"rayVersion {spec.ray_version}"
        + (f" is not the pinned {installed}. Fix: write that" if other else ", as pinned"),
    )
    yield _token(spec)
    yield _dashboard(spec)
    idle = spec.head_group_spec.ray_start_params.get("num-cpus") == "0"
    fix = 'the head would run tasks and training. Fix: rayStartParams: {num-cpus: "0"}'
    yield Finding("head", not idle, "runs no tasks and no training" if idle else fix)
    yield _autoscaling(spec)
    yield _images(spec)
    yield _drain(spec)


def _pods(spec: ClusterSpec) -> dict[str, PodSpec]:
    return {"head": spec.head_group_spec.template.spec} | {
        group.group_name: group.template.spec for group in spec.worker_group_specs
    }


def _token(spec: ClusterSpec) -> Finding:
    auth = spec.auth_options
    if auth is None or auth.mode != "token":
        return Finding(
            "token",
            True,
            "anyone who reaches the pods can run programs. Fix: authOptions: {mode: token, "
            "secretName: ...}",
        )
    wrong = [
        name
        for name, pod in _pods(spec).items()
        for one in pod.containers
        for var in one.env
        if var.name == "RAY_AUTH_MODE" and var.value != "token"
    ]
    if wrong:
        return Finding(
            "token",
            True,
            f"{', '.join(wrong)}: RAY_AUTH_MODE turns the token off. Fix: leave it to authOptions",
        )
    return Finding(
        "token",
        False,
        f"from the secret {auth.secret_name}" if auth.secret_name else "created by the operator",
    )


def _dashboard(spec: ClusterSpec) -> Finding:
    """On Kubernetes the operator must reach the dashboard, so it listens in the pod.

    It must not be reachable from outside.
    """
    head = spec.head_group_spec
    if (
        head.service_type != "ClusterIP"
        or head.enable_ingress
        or head.ingress_options
        or head.template.spec.host_network
    ):
        return Finding(
            "dashboard",
            True,
            "open to the outside. Fix: serviceType: ClusterIP without ingress, and kubectl "
            "port-forward to reach it",
        )
    return Finding("dashboard", False, "inside the Kubernetes cluster only")


def _autoscaling(spec: ClusterSpec) -> Finding:
    if (
        not spec.enable_in_tree_autoscaling
        or spec.autoscaler_options is None
        or spec.autoscaler_options.idle_timeout_seconds is None
    ):
        return Finding(
            "autoscaling",
            True,
            "idle workers would never be removed. Fix: enableInTreeAutoscaling: true, "
            "autoscalerOptions: {idleTimeoutSeconds: ...}",
        )
    wrong = [
        group.group_name
        for group in spec.worker_group_specs
        if group.min_replicas > group.max_replicas
    ]
    if wrong:
        return Finding("autoscaling", True, f"{', '.join(wrong)}: minReplicas is above maxReplicas")
    groups = ", ".join(
        f"{group.group_name} {group.min_replicas} to {group.max_replicas}"
        for group in spec.worker_group_specs
    )
    return Finding("autoscaling", False, groups)


def _images(spec: ClusterSpec) -> Finding:
    images = {
        container.image
        for pod in _pods(spec).values()
        for container in pod.containers + pod.init_containers
    }
    loose = sorted(
        image
        for image in images
        if ":" not in image.rsplit("/", 1)[-1] or image.endswith((":latest", ":nightly"))
    )
    return Finding(
        "images",
        bool(loose),
        f"{', '.join(loose)} changes over time. Fix: a tag" if loose else ", ".join(sorted(images)),
    )


def _drain(spec: ClusterSpec) -> Finding:
    """Kubernetes kills a pod after its grace period, even if it is not drained."""
    late = []
    for name, pod in _pods(spec).items():
        set_to = [
            float(var.value)
            for one in pod.containers
            for var in one.env
            if var.name == DRAIN and var.value is not None
        ]
        if (set_to or [RAYS_OWN_DRAIN_S])[0] >= pod.termination_grace_period_seconds:
            late.append(name)
    text = (
        f"{', '.join(late)}: killed before it is drained. Fix: terminationGracePeriodSeconds "
        f"above {DRAIN}"
    )
    return Finding("drain", bool(late), text if late else f"pods have longer than {DRAIN}")


def _runtime_env(text: str | None) -> Finding:
    if text is None:
        return Finding("runtime env", False, "none: the image contains the code")
    try:
        importlib.import_module("ray.runtime_env").RuntimeEnv(**(yaml.safe_load(text) or {}))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        return Finding("runtime env", True, str(error).splitlines()[0])
    return Finding("runtime env", False, "is valid")


def _serve_config(text: str) -> Finding:
    """Validates with Serve's schema, and rejects unknown keys, which Serve ignores.

    It also imports the application and validates its arguments.
    """
    try:
        config = yaml.safe_load(text)
        importlib.import_module("ray.serve.schema").ServeDeploySchema.model_validate(config)
    except (ValueError, yaml.YAMLError) as error:
        return Finding("serve", True, " ".join(str(error).split()))
    problems = [problem for one in config["applications"] for problem in _wrong_application(one)]
    return Finding(
        "serve",
        bool(problems),
        "; ".join(problems) or ", ".join(one["import_path"] for one in config["applications"]),
    )


def _wrong_application(given: Mapping[str, Any]) -> Iterator[str]:
    known = importlib.import_module("ray.serve.schema").ServeApplicationSchema.model_fields
    yield from (f"unknown key applications.{key}" for key in given if key not in known)
    module, _, name = given["import_path"].partition(":")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        yield f"there is no {given['import_path']}"
        return
    if module.startswith("mtl_ray."):
        try:
            build({**given.get("args", {}), "api_key_env": None})
        except ValueError as error:
            yield str(error)
