"""The cluster files pass all checks of the doctor, and each check finds the fault that it is
for.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from jobs.config import main as config
from jobs.doctor import main
from mtl_ray.distributed.doctor_commands import missing
from mtl_ray.distributed.doctor_file import examine_file
from mtl_ray.distributed.doctor_kubernetes import KINDS

ROOT = Path(__file__).parents[2]
RAY_UP = sorted((ROOT / "clusters").glob("*.yaml"))
KUBERAY = sorted((ROOT / "clusters" / "kuberay").glob("*.yaml"))
FILES = RAY_UP + KUBERAY


def broken(path: Path) -> dict[str, str]:
    return {finding.subject: finding.text for finding in examine_file(path) if finding.broken}


def changed(name: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of a cluster file with a part of its text replaced."""
    text = (ROOT / "clusters" / name).read_text()
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    path = folder / Path(name).name
    path.write_text(text)
    return path


def test_there_are_files_for_all_places():
    assert {path.stem for path in RAY_UP} == {"aws", "gcp", "azure", "local"}
    assert {yaml.safe_load(path.read_text())["kind"] for path in KUBERAY} == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_cluster_file_is_well(path):
    assert broken(path) == {}


@pytest.mark.parametrize(
    "path", [*FILES, ROOT / "clusters" / "Dockerfile"], ids=lambda path: path.stem
)
def test_a_file_begins_with_command_costs_and_what_was_not_tried(path):
    header = path.read_text().split("\n\n")[0].split("\napiVersion")[0].split("\nFROM")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert re.search(r"^#   (ray up|kubectl apply|docker build) .*clusters/", header, re.MULTILINE)
    for words in ("To edit:", "Costs:", "ere."):
        assert words in header
    assert re.search(r"not (started|built) .*here|Not built here", header)


@pytest.mark.parametrize("name", ["aws", "gcp", "azure"])
def test_spot_first_then_on_demand_and_cpus_for_what_needs_no_gpu(name):
    nodes = yaml.safe_load((ROOT / "clusters" / f"{name}.yaml").read_text())["available_node_types"]
    assert (
        nodes["cpu"]["priority"]
        > nodes["gpu_spot"]["priority"]
        > nodes["gpu_on_demand"]["priority"]
    )
    assert nodes["gpu_spot"]["resources"] == nodes["gpu_on_demand"]["resources"]
    assert nodes["head"]["resources"] == {"CPU": 0}


RULES = [
    ("aws.yaml", "schema", ("idle_timeout_minutes: 10", "idle_timeout_minuts: 10")),
    ("aws.yaml", "schema", ("    max_workers: 8", "    max_workrs: 8")),
    ("aws.yaml", "schema", ("      InstanceType: g6.2xlarge", "      InstanceTyp: g6.2xlarge")),
    ("aws.yaml", "schema", ("MarketType: spot", "MarketTyp: spot")),
    ("azure.yaml", "schema", ("evictionPolicy: Delete", "evictionPolicie: Delete")),
    ("gcp.yaml", "schema", ("      machineType: g2-standard-8", "      machinType: g2-standard-8")),
    ("local.yaml", "schema", ("  type: local\n", "  tipe: local\n")),
    ("aws.yaml", "explicit", ("worker_start_ray_commands:", "worker_setup_commands_:")),
    ("aws.yaml", "dashboard", ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0")),
    ("local.yaml", "dashboard", (" --dashboard-host=127.0.0.1", "")),
    (
        "gcp.yaml",
        "token",
        (
            "export RAY_AUTH_MODE=token PATH=$HOME/venv/bin:$PATH; ulimit",
            "export PATH=$HOME/venv/bin:$PATH; ulimit",
        ),
    ),
    ("gcp.yaml", "token", ("  /home/ubuntu/.ray/auth_token: ~/.ray/auth_token\n", "")),
    ("aws.yaml", "head", (" --num-cpus=0", "")),
    ("aws.yaml", "head", ("    resources: {CPU: 0}", "    resources: {CPU: 2}")),
    ("aws.yaml", "spot", ("spot_watcher.py aws", "watcher.py aws")),
    ("aws.yaml", "spot", ("    priority: 0\n", "    priority: 10\n")),
    (
        "aws.yaml",
        "versions",
        ("-r ~/mtl_ray/requirements.txt", "ray-3.0.0.dev0-cp310-cp310-manylinux2014_x86_64.whl"),
    ),
    (
        "aws.yaml",
        "keys",
        ("idle_timeout_minutes", "# x\nAKIAABCDEFGHIJKLMNOP: 1\nidle_timeout_minutes"),
    ),
    ("aws.yaml", "commands", ("ray start --address", "ray begin --address")),
    ("aws.yaml", "commands", ("ray start --address", "rya start --address")),
    ("aws.yaml", "commands", (" --num-cpus=0", " --num-cpu=0")),
    ("aws.yaml", "commands", ("spot_watcher.py aws --address", "spot_watcher.py aws --adress")),
    ("aws.yaml", "commands", (": clusters/spot_watcher.py", ": clusters/watcher_of_spots.py")),
    ("aws.yaml", "header", ("#   ray up clusters/aws.yaml", "#   ray start-all clusters/aws.yaml")),
    ("aws.yaml", "header", ("jobs.doctor clusters/aws.yaml", "jobs.dokter clusters/aws.yaml")),
    ("kuberay/raycluster.yaml", "schema", ("  headGroupSpec:", "  headGroupSpek:")),
    ("kuberay/raycluster.yaml", "schema", ("apiVersion: ray.io/v1", "apiVersion: ray.io/v1alpha1")),
    (
        "kuberay/raycluster.yaml",
        "schema",
        ("terminationGracePeriodSeconds: 120", "terminationGraceSeconds: 120"),
    ),
    ("kuberay/raycluster.yaml", "schema", ('num-cpus: "0"', "num-cpus: 0")),
    ("kuberay/raycluster.yaml", "schema", ("memory: 48Gi", "memory: 48 GB")),
    ("kuberay/raycluster.yaml", "token", ("    mode: token\n", "    mode: disabled\n")),
    (
        "kuberay/raycluster.yaml",
        "dashboard",
        ("serviceType: ClusterIP", "serviceType: LoadBalancer"),
    ),
    ("kuberay/raycluster.yaml", "head", ('num-cpus: "0"', 'num-cpus: "2"')),
    ("kuberay/raycluster.yaml", "images", ("mtl_ray:0.1.0", "mtl_ray:latest")),
    ("kuberay/raycluster.yaml", "ray", ("rayVersion: 2.60.0", "rayVersion: 2.9.0")),
    (
        "kuberay/raycluster.yaml",
        "autoscaling",
        ("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"),
    ),
    (
        "kuberay/raycluster.yaml",
        "drain",
        ("terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 30"),
    ),
    ("kuberay/rayjob.yaml", "commands", ("jobs.train configs", "jobs.trian configs")),
    (
        "kuberay/rayjob.yaml",
        "commands",
        ("configs/detection/retinanet_bccd.yaml", "configs/detection/no_such.yaml"),
    ),
    ("kuberay/rayjob.yaml", "schema", ("  backoffLimit: 3", "  backofLimit: 3")),
    (
        "kuberay/rayservice.yaml",
        "serve",
        ("serve_application:application", "serve_application:aplication"),
    ),
    ("kuberay/rayservice.yaml", "serve", ("route_prefix:", "rout_prefix:")),
    ("kuberay/rayservice.yaml", "serve", ("          parallel: 4", "          paralel: 4")),
]


@pytest.mark.parametrize(
    ("name", "subject", "change"), RULES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_catches_what_it_is_there_for(name, subject, change, tmp_path):
    said = broken(changed(name, tmp_path, change))
    assert subject in said, said


def test_a_misspelt_key_of_kubernetes_is_named_with_the_nearest(tmp_path):
    path = changed("kuberay/raycluster.yaml", tmp_path, ("maxReplicas: 4", "maxReplica: 4"))
    assert (
        "unknown key spec.workerGroupSpecs.0.maxReplica; did you mean maxReplicas?"
        in broken(path)["schema"]
    )


def test_the_job_says_it_and_ends_with_1(tmp_path, capsys):
    assert main([str(ROOT / "clusters" / "local.yaml")]) == 0
    assert "BROKEN" not in capsys.readouterr().out
    assert main([str(changed("local.yaml", tmp_path, ("127.0.0.1", "0.0.0.0")))]) == 1
    said = capsys.readouterr().out
    assert (
        "BROKEN  dashboard    ray start --head listens on 0.0.0.0. Fix: --dashboard-host=127.0.0.1"
        in said
    )
    assert said.endswith("1 broken\n")


def test_the_entrypoint_of_the_job_is_a_valid_config(capsys):
    entrypoint = yaml.safe_load((ROOT / "clusters" / "kuberay" / "rayjob.yaml").read_text())[
        "spec"
    ]["entrypoint"]
    words = shlex.split(entrypoint)
    assert words[:3] == ["python", "-m", "jobs.train"]
    assert config(["print", *words[3:]]) == 0
    assert "runtime.workers.max=8" in capsys.readouterr().out


def test_the_commands_of_the_page_exist():
    blocks = re.findall(
        r"(?:^ {4,}\S.*\n)+", (ROOT / "docs" / "clusters.md").read_text(), re.MULTILINE
    )
    lines = [
        line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()
    ]
    commands = [
        re.sub(r"\s#.*", "", line) for line in lines if re.match(r"(ray|python|make|export) ", line)
    ]
    assert len(commands) >= 10
    assert [problem for command in commands for problem in missing(command, {})] == []


@pytest.mark.parametrize("text", ["a: 1\n", "- a\n", "a: [1\n", ""])
def test_what_is_no_cluster_file_is_said(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"x\.yaml"):
        list(examine_file(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cd ~ && RAY_AUTH_MODE=token nohup ray start --head --port=1 >> ~/log 2>&1 &", None),
        ("python -m jobs.doctor --storage s3://b/r", None),
        ("make demo", None),
        ("(test -x a || sudo apt-get install -y b) | grep -q c", None),
        (
            "ray job submit --working-dir . -- python -m jobs.train configs/multitask/digits.yaml "
            "a=1",
            None,
        ),
        ("ray drain-node --node-id x --reason DRAIN_NODE_REASON_PREEMPTION", None),
        ("make tests", "no target tests"),
        ("echo ok && rya start", "no program rya"),
        ("ray job submitt", "ray job has no subcommand submitt"),
        ("ray job submit -- python -m jobs.trein x", "no module jobs.trein"),
        ("python -m jobs.doctor --storrage x", "no option --storrage"),
        ("python clusters/no_such.py", "no script clusters/no_such.py"),
        ("echo 'unfinished", "cannot be parsed as shell"),
    ],
)
def test_commands_that_do_not_exist_are_named(command, words):
    problems = list(missing(command, {}))
    assert problems == [] if words is None else any(words in problem for problem in problems), (
        problems
    )
