"""Spare workers: Ray workers that have started, and imported Ray Train, before a group needs them.

The process of a worker of Ray Train takes seconds to start, mostly for imports. A raylet starts
processes ahead of need if its ``PrestartWorkers`` is called (Ray has no Python function for that).
It gives a new actor one of them if their runtime environments are equal. If there is no spare
worker, a worker starts as usual.
"""

import importlib
import logging
import subprocess
import sys

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR
from ray._private.utils import get_runtime_env_info
from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc
from ray.runtime_env import RuntimeEnv

import mtl_ray

KEEP_S = 7 * 24 * 3600
"""How long a spare worker is kept at most; it ends with its job."""
REQUEST_S = 10.0
_log = logging.getLogger(__name__)


def import_hook() -> dict[str, str]:
    """Environment variables that make Ray workers import at their start what they need later.

    Empty if the job has a hook of its own. Empty as well if mtl_ray comes from the folder in which
    the driver was started: workers learn of that folder only after the hook, so the hook would find
    another mtl_ray or none.
    """
    job = ray.get_runtime_context().runtime_env
    sent = "working_dir" in job or "py_modules" in job
    if job.get("worker_process_setup_hook") or not (sent or _importable_elsewhere()):
        return {}
    return {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.{import_all.__name__}"}


def _importable_elsewhere() -> bool:
    """Whether a Python process that starts in another folder imports this mtl_ray."""
    command = [sys.executable, "-c", "import mtl_ray; print(mtl_ray.__file__)"]
    return (
        subprocess.run(command, cwd="/", capture_output=True, text=True, check=False).stdout.strip()
        == mtl_ray.__file__
    )


def import_all() -> None:
    """Imports what every worker of Ray Train imports here."""
    for name in (
        "ray.train.v2._internal.execution.worker_group.worker",
        "mtl_ray.distributed.rank_worker",
    ):
        importlib.import_module(name)


def prestart(job: str, runtime_env: str, count: int) -> None:
    """Asks the raylet of this machine for spare workers.

    Args:
        job: hexadecimal id of the job that will use them.
        runtime_env: of the actors that will use them; the value of
            ``RuntimeContext.get_runtime_env_string`` in such an actor.
        count: how many more.
    """
    this_node = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == this_node)
    request = node_manager_pb2.PrestartWorkersRequest(
        language=common_pb2.PYTHON,
        job_id=bytes.fromhex(job),
        keep_alive_duration_secs=KEEP_S,
        num_workers=count,
    )
    request.runtime_env_info.CopyFrom(
        get_runtime_env_info(RuntimeEnv.deserialize(runtime_env), serialize=False)
    )
    request.runtime_env_info.serialized_runtime_env = runtime_env
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
        try:
            node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(
                request, timeout=REQUEST_S
            )
        except grpc.RpcError as error:
            _log.warning(
                "no spare workers on this machine, so that the next start takes longer: %s", error
            )
