"""The schema of the objects of KubeRay (``ray.io/v1``, operator 1.7) and of the pods inside them.

Kubernetes drops unknown fields silently, so a misspelt field has no effect. This schema rejects
them. Fields that are not used here have the type ``Any``.
https://docs.ray.io/en/master/cluster/kubernetes/references/api.html
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[KMGTPE]i?|k)?$")] | int | float
Count = Annotated[int, Field(ge=0)]


class _Fields(BaseModel):
    """Field names are in snake case, keys in camel case (``head_group_spec``,
    ``headGroupSpec``).
    """

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Metadata(_Fields):
    """Of an object or a pod."""

    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class EnvVar(_Fields):
    """One variable; a number must be quoted."""

    name: str
    value: str | None = None
    value_from: dict[str, dict[str, Any]] | None = None


class ContainerResources(_Fields):
    """Of a container."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    claims: Any = None


class Port(_Fields):
    """Of a container."""

    container_port: int
    name: str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    host_port: Any = None
    host_ip: Any = Field(default=None, alias="hostIP")


class VolumeMount(_Fields):
    """Of a container."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str | None = None
    sub_path_expr: Any = None
    mount_propagation: Any = None
    recursive_read_only: Any = None


class Container(_Fields):
    """Of a pod."""

    name: str
    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    command: list[str] = []
    args: list[str] = []
    env: list[EnvVar] = []
    env_from: list[dict[str, Any]] = []
    ports: list[Port] = []
    resources: ContainerResources = ContainerResources()
    volume_mounts: list[VolumeMount] = []
    working_dir: str | None = None
    lifecycle: Any = None
    liveness_probe: Any = None
    readiness_probe: Any = None
    startup_probe: Any = None
    resize_policy: Any = None
    restart_policy: Any = None
    security_context: Any = None
    stdin: Any = None
    stdin_once: Any = None
    termination_message_path: Any = None
    termination_message_policy: Any = None
    tty: Any = None
    volume_devices: Any = None


class Volume(BaseModel):
    """A name and one source."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str


class Toleration(_Fields):
    """Of a pod."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class PodSpec(_Fields):
    """Of a template."""

    containers: Annotated[list[Container], Field(min_length=1)]
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    service_account_name: str | None = None
    termination_grace_period_seconds: Count = 30
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    active_deadline_seconds: Any = None
    affinity: Any = None
    automount_service_account_token: Any = None
    dns_config: Any = None
    dns_policy: Any = None
    enable_service_links: Any = None
    host_aliases: Any = None
    host_network: Any = None
    image_pull_secrets: Any = None
    node_name: Any = None
    preemption_policy: Any = None
    priority: Any = None
    priority_class_name: Any = None
    resource_claims: Any = None
    runtime_class_name: Any = None
    scheduler_name: Any = None
    scheduling_gates: Any = None
    security_context: Any = None
    share_process_namespace: Any = None
    subdomain: Any = None
    topology_spread_constraints: Any = None


class PodTemplate(_Fields):
    """The template of the pods of a group."""

    metadata: Metadata = Metadata()
    spec: PodSpec


class HeadGroup(_Fields):
    """The one head."""

    template: PodTemplate
    ray_start_params: dict[str, str] = {}
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    enable_ingress: bool = False
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    head_service: Any = None
    ingress_options: Any = None


class WorkerGroup(_Fields):
    """Workers of one kind."""

    group_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    template: PodTemplate
    min_replicas: Count
    max_replicas: Count
    replicas: Count | None = None
    num_of_hosts: Count = 1
    priority: int = 0
    idle_timeout_seconds: Count | None = None
    ray_start_params: dict[str, str] = {}
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    scale_strategy: Any = None
    suspend: bool = False


class AuthOptions(_Fields):
    """How clients of Ray authenticate."""

    mode: Literal["token", "disabled"] = "token"
    secret_name: str | None = None
    enable_k8s_token_auth: bool = Field(default=False, alias="enableK8sTokenAuth")


class AutoscalerOptions(_Fields):
    """The autoscaler, a container beside the head."""

    version: Literal["v1", "v2"] | None = None
    idle_timeout_seconds: Count | None = None
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] | None = None
    resources: ContainerResources = ContainerResources()
    image: str | None = None
    image_pull_policy: str | None = None
    env: list[EnvVar] = []
    env_from: Any = None
    volume_mounts: list[VolumeMount] = []
    security_context: Any = None
    command: Any = None
    args: Any = None


class GcsStorage(_Fields):
    """The volume for the state of the head."""

    size: Quantity | None = None
    claim_name: str | None = None
    storage_class_name: str | None = None
    access_modes: list[str] = []
    sub_path: str | None = None
    deletion_policy: Literal["DeleteWithCluster", "Retain"] | None = None


class GcsFaultTolerance(_Fields):
    """Where the state of the head is stored."""

    backend: Literal["redis", "rocksdb"] = "redis"
    storage: GcsStorage | None = None
    redis_address: str | None = None
    redis_username: Any = None
    redis_password: Any = None
    external_storage_namespace: str | None = None


class ClusterSpec(_Fields):
    """Of a RayCluster, and inside the two others."""

    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] = []
    ray_version: str
    auth_options: AuthOptions | None = None
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: AutoscalerOptions | None = None
    gcs_fault_tolerance_options: GcsFaultTolerance | None = None
    suspend: bool = False
    managed_by: Any = None
    head_service_annotations: dict[str, str] = {}
    upgrade_strategy: Any = None
    history_server_options: Any = None
    network_policy: Any = None
    tls_options: Any = None


class JobSpec(_Fields):
    """Of a RayJob."""

    entrypoint: str
    ray_cluster_spec: ClusterSpec
    runtime_env_yaml: str | None = Field(default=None, alias="runtimeEnvYAML")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"] = (
        "K8sJobMode"
    )
    shutdown_after_job_finishes: bool = False
    ttl_seconds_after_finished: Count = 0
    active_deadline_seconds: Count | None = None
    pre_running_deadline_seconds: Count | None = None
    backoff_limit: Count = 0
    metadata: dict[str, str] = {}
    job_id: str | None = None
    suspend: bool = False
    entrypoint_num_cpus: float = 0
    entrypoint_num_gpus: float = 0
    entrypoint_resources: str | None = None
    submitter_pod_template: PodTemplate | None = None
    submitter_config: Any = None
    deletion_strategy: Any = None
    managed_by: Any = None


class ServiceSpec(_Fields):
    """Of a RayService."""

    serve_config_v2: str
    ray_cluster_config: ClusterSpec
    serve_service: Any = None
    upgrade_strategy: Any = None
    exclude_head_pod_from_serve_svc: bool = False
    ray_cluster_deletion_delay_seconds: Count | None = None
    managed_by: Any = None
    suspend: bool = False


class _Object(_Fields):
    api_version: Literal["ray.io/v1"]
    metadata: Metadata


class RayCluster(_Object):
    """A cluster that runs until it is deleted."""

    kind: Literal["RayCluster"]
    spec: ClusterSpec


class RayJob(_Object):
    """One job with a cluster of its own."""

    kind: Literal["RayJob"]
    spec: JobSpec


class RayService(_Object):
    """Applications of Serve with a cluster of their own."""

    kind: Literal["RayService"]
    spec: ServiceSpec
