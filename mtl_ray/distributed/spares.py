"""Ray workers that are there, and have imported Ray Train, before a group wants them.

A worker of Ray Train is a process that takes seconds to start, most of them for imports. A raylet starts processes ahead of need if it is
asked to (its ``PrestartWorkers``, for which Ray has no Python function), and gives a new actor one of them if their runtime
environments are equal. If it does not, or no longer, workers start as they would without.
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
"""So long a spare one is kept; it ends with its job."""
ASK_S = 10.0
_log = logging.getLogger(__name__)


def hook() -> dict[str, str]:
    """Variables that make Ray workers import what they will need as soon as they start.

    None if the job has a hook of its own, or if mtl_ray comes from the folder that the driver was started in: Ray tells workers of
    that folder only after the hook, which would find another mtl_ray or none.
    """
    job = ray.get_runtime_context().runtime_env
    sent = "working_dir" in job or "py_modules" in job
    if job.get("worker_process_setup_hook") or not (sent or _found_elsewhere()):
        return {}
    return {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.{import_all.__name__}"}


def _found_elsewhere() -> bool:
    """Whether a Python that is started in another folder imports this mtl_ray."""
    command = [sys.executable, "-c", "import mtl_ray; print(mtl_ray.__file__)"]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False).stdout.strip() == mtl_ray.__file__


def import_all() -> None:
    """What a worker of Ray Train imports here, in any case."""
    for name in ("ray.train.v2._internal.execution.worker_group.worker", "mtl_ray.distributed.work"):
        importlib.import_module(name)


def prestart(job: str, runtime_env: str, count: int) -> None:
    """Asks this machine's raylet for spare workers.

    Args:
        job: hexadecimal number of the one that will use them.
        runtime_env: of the actors that are to find them, as ``RuntimeContext.get_runtime_env_string`` says it in such an actor.
        count: how many more.
    """
    myself = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == myself)
    request = node_manager_pb2.PrestartWorkersRequest(
        language=common_pb2.PYTHON, job_id=bytes.fromhex(job), keep_alive_duration_secs=KEEP_S, num_workers=count
    )
    request.runtime_env_info.CopyFrom(get_runtime_env_info(RuntimeEnv.deserialize(runtime_env), serialize=False))
    request.runtime_env_info.serialized_runtime_env = runtime_env
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
        try:
            node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=ASK_S)
        except grpc.RpcError as error:
            _log.warning("no spare workers on this machine, so that the next start takes longer: %s", error)
