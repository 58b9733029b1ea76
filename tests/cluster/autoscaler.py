"""A cluster file for an autoscaler without a cloud (Ray's own fake provider): nodes are
processes on the host of the head.
"""

import json
from pathlib import Path

HEAD_ID = "f" * 51 + "00000"


def write_cluster(path: Path, address: str, *, nodes: int, idle_s: float) -> dict[str, str]:
    """Writes the file for ``ray start --head --autoscaling-config``; JSON is YAML.

    Args:
        path: of the file.
        address: of the cluster.
        nodes: of one CPU each, at most.
        idle_s: after which an unused node is taken away.

    Returns:
        What the head's environment must have. The start commands are empty: Ray's own run ``ray
        stop``.
    """
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": address,
        "head_node_id": HEAD_ID,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    lists = (
        "initialization_commands",
        "setup_commands",
        "head_setup_commands",
        "worker_setup_commands",
        "cluster_synced_files",
    )
    lists += (
        "head_start_ray_commands",
        "worker_start_ray_commands",
        "file_mounts_sync_continuously",
        "rsync_exclude",
        "rsync_filter",
    )
    content = {
        "cluster_name": "tests",
        "max_workers": nodes,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_s / 60,
        "provider": provider,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu_spot": {
                "resources": {"CPU": 1, "object_store_memory": 80_000_000},
                "labels": {"ray.io/market-type": "spot"},
                "node_config": {},
                "min_workers": 0,
                "max_workers": nodes,
            },
        },
        **{name: [] for name in lists},
        "file_mounts_sync_continuously": False,
    }
    path.write_text(json.dumps(content, indent=1))
    return {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
