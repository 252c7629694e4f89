"""The files for clusters are valid, and a slip in any of them would be noticed."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from ray.scripts.scripts import cli

from ciq_ray import __version__
from tests.cluster.checks import (
    ROOT,
    cluster_problems,
    image_problems,
    kuberay_problems,
    ray_version,
)

FILES = ["cluster.yaml", "examples/cluster/aws.yaml", "examples/cluster/gcp.yaml"]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_it_is_valid(name: str) -> None:
    assert cluster_problems(load(name)) == []


def slip(data: Any, path: str, value: Any) -> Any:
    """A copy with something else at a path; a key that ends with ``>new`` is renamed."""
    changed = copy.deepcopy(data)
    *parents, last = path.split("/")
    node = changed
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    name, _, new = last.partition(">")
    if new:
        node[new] = node.pop(name)
    elif value is None:
        del node[name]
    elif isinstance(value, tuple):
        old, replacement = value
        index = int(name) if isinstance(node, list) else name
        assert old in node[index]
        node[index] = node[index].replace(old, replacement)
    else:
        node[int(name) if isinstance(node, list) else name] = value
    assert changed != data
    return changed


EVERYWHERE = [
    ("cluster_name>cluster-name", None, "Ray refuses it"),
    ("provider/type", "awss", "provider.type"),
    ("auth/ssh_user>user", None, "Ray refuses it"),
    ("setup_commands/0", 3, "Ray refuses it"),
    ("head_start_ray_commands/1", ("--head", "--haed"), "--haed"),
    ("head_start_ray_commands/1", ("--num-cpus=0", "--num-cpus=8"), "--num-cpus"),
    (
        "head_start_ray_commands/1",
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        "--dashboard-host",
    ),
    ("head_start_ray_commands/1", ("--port=6379", "--port=6380"), "--port"),
    ("head_start_ray_commands/1", (" --autoscaling-config=~/ray_bootstrap_config.yaml", ""), "--autoscaling"),
    ("head_start_ray_commands/1", ("RAY_AUTH_MODE=token ", ""), "RAY_AUTH_MODE"),
    ("head_start_ray_commands/1", ("export ", ""), "exported"),
    ("head_start_ray_commands/1", ("ray start", "ray begin"), "ray start"),
    ("head_start_ray_commands/0", ("ray stop", "ray halt"), "stop"),
    ("worker_start_ray_commands/1", ("$RAY_HEAD_IP:6379", "$RAY_HEAD:6379"), "--address"),
    ("worker_start_ray_commands/1", ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=tokn"), "RAY_AUTH_MODE"),
    ("worker_start_ray_commands/1", ("OVERRIDE_ON_ZERO", "OVERRIDE_ON_ZER"), "nobody reads"),
    ("worker_start_ray_commands/1", ("MLFLOW_TRACKING_URI=http", "MLFLOW_TRACKING_URI=htp"), "MLFLOW"),
    ("file_mounts", {}, "token"),
]
SLIPS = {
    "cluster.yaml": [
        *EVERYWHERE,
        ("provider/head_ip>head_ips", None, "Ray refuses it"),
        ("provider/worker_ips>workers", None, "Ray refuses it"),
        ("available_node_types", {"a": {"resources": {}, "node_config": {}}}, "Ray refuses it"),
        ("setup_commands/2", (ray_version(), "2.59.0"), "pinned"),
        ("setup_commands/2", (__version__, "9.9.9"), "pinned"),
        ("head_start_ray_commands/1", ("pool=head", "pol=head"), "--labels"),
        ("worker_start_ray_commands/1", ("--labels pool=$pool", "--label pool=$pool"), "label"),
    ],
    "examples/cluster/aws.yaml": [
        *EVERYWHERE,
        ("provider/region>regoin", None, "nobody reads"),
        ("provider/availability_zone>zone", None, "nobody reads"),
        ("docker/head_image", "rayproject/ray:latest", "image"),
        ("docker/worker_image>workers_image", None, "Ray refuses it"),
        ("available_node_types/gpu/node_config/InstanceType>InstancType", None, "nobody reads"),
        ("available_node_types/gpu/node_config/ImageId>ImageID", None, "nobody reads"),
        ("available_node_types/gpu/node_config/BlockDeviceMappings/0/Ebs>EBS", None, "nobody reads"),
        ("available_node_types/gpu/labels/pool", "gpus", "label"),
        ("available_node_types/gpu/resources/GPU>GPUs", None, "resources"),
        ("available_node_types/head/resources/CPU", 4, "resources"),
        ("available_node_types/gpu/min_workers>min_worker", None, "Ray refuses it"),
        ("available_node_types/gpu/max_workers", 80, "max_workers"),
        ("head_node_type", "heads", "Ray refuses it"),
        ("idle_timeout_minutes", 600, "idle"),
        ("head_start_ray_commands/1", ("s3://", "s3:/"), "TUNE_STORAGE"),
        ("setup_commands/1", ("constraints.txt", "constraint.txt"), "constraints"),
    ],
    "examples/cluster/gcp.yaml": [
        *EVERYWHERE,
        ("provider/project_id>project", None, "nobody reads"),
        ("docker/worker_image", f"rayproject/ray:{ray_version()}-py312-gpu", "image"),
        ("available_node_types/gpu/node_config/machineType>machine_type", None, "nobody reads"),
        ("available_node_types/gpu/node_config/disks/0/boot>bot", None, "nobody reads"),
        (
            "available_node_types/gpu/node_config/disks/0/initializeParams/diskSizeGb>diskSizeGB",
            None,
            "nobody",
        ),
        ("available_node_types/gpu/node_config/guestAccelerators/0/acceleratorCount>count", None, "nobody"),
        ("available_node_types/cpu/node_config/scheduling/0/preemptible>preemptable", None, "nobody reads"),
        ("available_node_types/cpu/resources/GPU", 1, "resources"),
    ],
}


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [(name, *one) for name, slips in SLIPS.items() for one in slips],
    ids=[
        f"{Path(name).stem}-{path}-{number}"
        for name, all in SLIPS.items()
        for number, (path, *_) in enumerate(all)
    ],
)
def test_a_slip_is_noticed(name: str, path: str, value: Any, message: str) -> None:
    problems = cluster_problems(slip(load(name), path, value))
    assert any(message in problem for problem in problems), problems


def kuberay() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples/cluster/kuberay.yaml").read_text()))


def test_kuberay_is_valid() -> None:
    assert kuberay_problems(kuberay()) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("0/apiVersion", "ray.io/v1alpha1", "apiVersion"),
        ("0/kind", "RayClusters", "kinds"),
        ("0/spec/rayVersion", "2.59.0", "rayVersion"),
        ("0/spec/authOptions/mode", "disabled", "token"),
        ("0/spec/enableInTreeAutoscaling>enableAutoscaling", None, "nobody reads"),
        ("0/spec/autoscalerOptions/idleTimeoutSeconds>idleTimeout", None, "nobody reads"),
        ("0/spec/headGroupSpec/rayStartParams/num-cpus>num_cpus", None, "num_cpus"),
        ("0/spec/headGroupSpec/rayStartParams/num-cpus", "4", "trials"),
        ("0/spec/headGroupSpec/serviceType", "LoadBalancer", "outside"),
        ("0/spec/workerGroupSpecs/0/maxReplicas>maxReplica", None, "nobody reads"),
        ("0/spec/workerGroupSpecs/0/minReplicas", 9, "grow"),
        ("0/spec/workerGroupSpecs/0/labels/pool>pol", None, "label"),
        ("0/spec/workerGroupSpecs/0/template/spec/restartPolicy>restart", None, "nobody reads"),
        ("0/spec/workerGroupSpecs/0/template/spec/containers/0/image", "ciq-ray:latest", "image"),
        ("0/spec/workerGroupSpecs/0/template/spec/containers/0/env/1/value", "", "CIQ_RUNS_DIR"),
        ("0/spec/workerGroupSpecs/0/template/spec/containers/0/volumeMounts/0/name", "share", "mounted"),
        ("1/spec/entrypoint>entryPoint", None, "nobody reads"),
    ],
)
def test_a_slip_for_kuberay_is_noticed(path: str, value: Any, message: str) -> None:
    problems = kuberay_problems(slip(kuberay(), path, value))
    assert any(message in problem for problem in problems), problems


def test_gpus_of_kuberay_are_nvidias() -> None:
    documents = kuberay()
    for kind in ("limits", "requests"):
        container = documents[0]["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
        container["resources"] = copy.deepcopy(container["resources"])
        container["resources"][kind]["nvidia.com/gpus"] = container["resources"][kind].pop("nvidia.com/gpu")
    assert any("GPUs of the pools" in problem for problem in kuberay_problems(documents))


def test_a_job_for_another_cluster_is_noticed() -> None:
    documents = kuberay()
    documents[1]["spec"]["clusterSelector"] = {"ray.io/cluster": "other"}
    assert any("another cluster" in problem for problem in kuberay_problems(documents))


def test_the_image_is_pinned_and_has_what_it_copies() -> None:
    lines = (ROOT / "examples/cluster/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    assert [line[0] for line in words] == ["FROM", "COPY", "RUN", "COPY"]
    assert list(image_problems(words[0][1])) == []
    assert f"ray[default,tune]=={ray_version()}" in words[2]
    assert words[2][-1].endswith(f"dist/ciq_ray-{__version__}-py3-none-any.whl")
    assert (ROOT / words[3][1]).exists()
    entrypoint = kuberay()[1]["spec"]["entrypoint"].split()
    assert entrypoint[1] == f"{words[3][2]}{Path(words[3][1]).name}"


def commands() -> list[str]:
    """The commands that the guide shows."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    shown = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line for block in shown for line in block.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("ray ")])
def test_rays_commands_in_the_guide_have_options_that_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    group: click.Command = cli
    while isinstance(group, click.Group):
        name = words.pop(0)
        assert name in group.commands, command
        group = group.commands[name]
    context = group.make_context(command, words)  # raises for what it does not know
    for value in context.params.values():
        for word in value if isinstance(value, tuple) else [value]:
            if isinstance(word, str) and word.endswith((".py", ".yaml")):
                folder = ROOT / str(context.params.get("working_dir") or "")
                assert (folder / word).exists(), word


def test_the_job_in_the_guide_has_options_that_exist() -> None:
    jobs = [shlex.split(line.partition("tune_job.py")[2]) for line in commands() if "tune_job.py" in line]
    jobs.append(kuberay()[1]["spec"]["entrypoint"].split()[2:])
    assert len(jobs) == 5
    source = (ROOT / "examples" / "cluster" / "tune_job.py").read_text()
    for words in jobs:
        for word in words:
            assert not word.startswith("--") or f'"{word}"' in source


def test_the_guide_names_all_files_and_starts_what_the_files_start() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    for path in re.findall(r"(?:examples/cluster/[a-z_]+\.(?:yaml|py)|cluster\.yaml)", text):
        assert (ROOT / path).exists(), path
    for name in ("aws.yaml", "gcp.yaml", "kuberay.yaml", "tune_job.py"):
        assert f"examples/cluster/{name}" in text
    image = kuberay()[0]["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert text.count(image) == 2
    started = load("cluster.yaml")["head_start_ray_commands"][1].partition("ray start ")[2].split()
    assert set(next(one for one in commands() if "--head" in one).split()[2:]) <= set(started)
