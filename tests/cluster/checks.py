"""What is wrong with a file for a cluster, as far as that can be seen without one.

Ray's own schema comes first. It lets unknown keys of a provider and of ``node_config`` pass, and looks at no
command, so those are compared with what is documented, and the commands parsed by Ray's own parser. For
KubeRay the fields are those of its ``ray.io/v1`` types (1.6) and of Kubernetes' pods, as far as the file
uses such; Ray's autoscaler then has to make sense of it.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from ciq_ray import __version__

__all__ = ["cluster_problems", "image_problems", "kuberay_problems", "ray_version"]

ROOT = Path(__file__).parents[2]

PROVIDER = {
    "local": {"type", "head_ip", "worker_ips"},
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "security_group"},
    "gcp": {"type", "region", "availability_zone", "project_id"},
}
NODE_CONFIG = {
    "local": set(),
    # of EC2's `create_instances`
    "aws": {"InstanceType", "ImageId", "BlockDeviceMappings", "InstanceMarketOptions", "IamInstanceProfile"},
    # of Compute Engine's `instances.insert`
    "gcp": {"machineType", "disks", "guestAccelerators", "metadata", "scheduling", "serviceAccounts"},
}
NESTED = {
    "BlockDeviceMappings": {"DeviceName", "Ebs"},
    "Ebs": {"VolumeSize", "VolumeType"},
    "InstanceMarketOptions": {"MarketType"},
    "disks": {"boot", "autoDelete", "type", "initializeParams"},
    "initializeParams": {"diskSizeGb", "sourceImage"},
    "guestAccelerators": {"acceleratorType", "acceleratorCount"},
    "metadata": {"items"},
    "scheduling": {"onHostMaintenance", "preemptible"},
}
VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "CIQ_RUNS_DIR": r"/.+",
    "MLFLOW_TRACKING_URI": r"https?://.+:\d+",
    "TUNE_STORAGE": r"((s3|gs)://|/).+",
}
KUBERAY = {
    "RayCluster": {"apiVersion", "kind", "metadata", "spec"},
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "cluster spec": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "autoscalerOptions": {"version", "upscalingMode", "idleTimeoutSeconds"},
    "headGroupSpec": {"serviceType", "labels", "rayStartParams", "template"},
    "workerGroupSpecs": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "labels",
        "rayStartParams",
        "template",
    },
    "pod": {"restartPolicy", "containers", "volumes"},
    "container": {"name", "image", "env", "ports", "resources", "volumeMounts"},
    "job spec": {"entrypoint", "submissionMode", "clusterSelector"},
}


def ray_version() -> str:
    """The version of Ray that everything is tested with."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    return next(pin.removeprefix("ray==") for pin in pins if pin.startswith("ray=="))


def cluster_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with a file for `ray up`."""
    kind = config.get("provider", {}).get("type")
    if kind not in PROVIDER:
        return [f"provider.type is {kind!r}"]
    try:
        prepared = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
    except (Exception, SystemExit) as error:  # Ray prints, and exits, for some
        return [f"Ray refuses it: {type(error).__name__}: {error}".splitlines()[0]]
    problems = list(_unknown("provider", config["provider"], PROVIDER[kind]))
    missing = {"local": {"head_ip", "worker_ips"}}.get(kind, {"region", "availability_zone"})
    problems += [f"provider.{name} is missing" for name in sorted(missing - set(config["provider"]))]
    problems += _mounts(config)
    if kind != "local":
        problems += _pools(config, NODE_CONFIG[kind])
        problems += _docker(config["docker"])
    wheel = re.escape(f"/ciq_ray-{__version__}-py3-none-any.whl")
    setup = "\n".join(config["setup_commands"])
    if not re.search(
        rf'pip install .*--constraint \S+/constraints\.txt .*"ray\[default,tune\]=='
        rf'{re.escape(ray_version())}".* \S+{wheel}',
        setup,
    ):
        problems.append("setup_commands do not install the pinned ray and ciq-ray with the constraints")
    for role in ("head", "worker"):
        problems += [f"{role}: {text}" for text in _start(config[f"{role}_start_ray_commands"], role, kind)]
    return problems


def _unknown(place: str, found: Any, known: set[str]) -> Iterator[str]:
    for name in sorted(set(found) - known):
        yield f"{place} has {name!r}, which nobody reads"


def _mounts(config: dict[str, Any]) -> Iterator[str]:
    mounts = config.get("file_mounts", {})
    if not any(target.endswith("/.ray/auth_token") for target in mounts):
        yield "file_mounts have no token"
    if "dist" not in mounts.values():
        yield "file_mounts have no wheel"


def _pools(config: dict[str, Any], known: set[str]) -> Iterator[str]:
    types = config["available_node_types"]
    if set(types) != {"head", "gpu", "cpu"}:
        yield f"the pools are {sorted(types)}"
    for name, node in types.items():
        yield from _unknown(f"{name}.node_config", node["node_config"], known)
        yield from _nested(name, node["node_config"])
        if not {"InstanceType", "machineType"} & set(node["node_config"]):
            yield f"{name}.node_config says no machine type"
        if node.get("labels") != {"pool": name}:
            yield f"{name} has no label pool={name}"
        gpus = node["resources"].get("GPU", 0)
        if (gpus > 0) != (name == "gpu") or (name == "head" and node["resources"] != {"CPU": 0, "GPU": 0}):
            yield f"{name} has the resources {node['resources']}"
        if name != "head" and not (node.get("min_workers") == 0 < node.get("max_workers", 0)):
            yield f"{name} does not grow from 0"
    if sum(node.get("max_workers", 0) for node in types.values()) > config["max_workers"]:
        yield "max_workers is less than the pools have"
    if not 0 < config.get("idle_timeout_minutes", 0) <= 60:
        yield "idle machines are not ended within an hour"


def _nested(place: str, node: Any) -> Iterator[str]:
    for name, value in node.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from _unknown(f"{place}.{name}", part, NESTED.get(name, set(part)))
                if name in NESTED:
                    yield from _nested(place, part)


def _docker(docker: dict[str, Any]) -> Iterator[str]:
    for name in ("head_image", "worker_image"):
        yield from image_problems(docker.get(name, ""))


def image_problems(image: str) -> Iterator[str]:
    """Whether an image of Ray's is the pinned version."""
    if not re.fullmatch(rf"rayproject/ray:{re.escape(ray_version())}-py311(-gpu)?", image):
        yield f"the image {image!r} is not ray {ray_version()} with Python 3.11"


def _start(commands: list[str], role: str, kind: str) -> Iterator[str]:
    stops, begins = commands[0], commands[-1]
    if len(commands) != 2 or not re.fullmatch(r"(\S+/)?ray stop", stops):
        yield "it does not first stop what runs"
    exported = dict(re.findall(r"\b([A-Z_]+)=([^\s;]+)", begins.partition("ray start")[0]))
    for name, pattern in VARIABLES.items():
        if name == "TUNE_STORAGE" and kind == "local":
            continue
        if not re.fullmatch(pattern, exported.get(name, "")):
            yield f"{name} is {exported.get(name)!r}"
    for name in sorted(set(exported) - set(VARIABLES)):
        yield f"it sets {name}, which nobody reads"
    if not begins.startswith("export "):
        yield "its variables are not exported"
    found = re.search(r"(?:^|[\s;/])ray start (.*)$", begins)
    if found is None:
        yield "there is no `ray start`"
        return
    try:
        given = start.make_context("ray start", shlex.split(found[1])).params
    except click.ClickException as error:
        yield error.format_message()
        return
    if role == "head":
        expected = {
            "head": True,
            "port": 6379,
            "num_cpus": 0,
            "num_gpus": 0,
            "dashboard_host": "127.0.0.1",
            "autoscaling_config": "~/ray_bootstrap_config.yaml",
        }
    else:
        expected = {"head": False, "address": "$RAY_HEAD_IP:6379", "num_cpus": None, "num_gpus": None}
    for name, value in expected.items():
        if given[name] != value:
            yield f"--{name.replace('_', '-')} is {given[name]!r}, not {value!r}"
    if kind == "local" and given["labels"] != ("pool=head" if role == "head" else "pool=$pool"):
        yield f"--labels is {given['labels']!r}"


def kuberay_problems(documents: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a RayCluster and a RayJob on it."""
    kinds = [document.get("kind") for document in documents]
    if kinds != ["RayCluster", "RayJob"]:
        return [f"the kinds are {kinds}"]
    cluster, job = documents
    problems = []
    for document in documents:
        problems += _unknown(document["kind"], document, KUBERAY[document["kind"]])
        if document.get("apiVersion") != "ray.io/v1":
            problems.append(f"apiVersion is {document.get('apiVersion')!r}")
    spec = cluster["spec"]
    problems += _unknown("spec", spec, KUBERAY["cluster spec"])
    missing = KUBERAY["cluster spec"] - set(spec)
    if missing:
        return [*problems, f"spec lacks {sorted(missing)}"]
    options = spec["autoscalerOptions"]
    problems += _unknown("autoscalerOptions", options, KUBERAY["autoscalerOptions"])
    if spec["rayVersion"] != ray_version():
        problems.append(f"rayVersion is {spec['rayVersion']!r}, not {ray_version()!r}")
    if spec["authOptions"] != {"mode": "token"}:
        problems.append("there is no token")
    if spec["enableInTreeAutoscaling"] is not True or not 0 < options.get("idleTimeoutSeconds", 0) <= 3600:
        problems.append("idle pods are not ended within an hour")
    head = spec["headGroupSpec"]
    problems += _unknown("headGroupSpec", head, KUBERAY["headGroupSpec"])
    if (head["rayStartParams"].get("num-cpus"), head["rayStartParams"].get("num-gpus")) != ("0", "0"):
        problems.append("the head takes trials")
    if head.get("serviceType") != "ClusterIP":
        problems.append("the head can be reached from outside")
    groups = spec["workerGroupSpecs"]
    for group in groups:
        problems += _unknown("workerGroupSpecs", group, KUBERAY["workerGroupSpecs"])
        if group.get("labels") != {"pool": group.get("groupName")}:
            problems.append(f"{group.get('groupName')} has no label of its own")
        if not 0 <= group.get("minReplicas", -1) <= group.get("replicas", -1) < group.get("maxReplicas", 0):
            problems.append(f"{group.get('groupName')} cannot grow")
    for group in (head, *groups):
        problems += _group(group)
    problems += _unknown("job spec", job["spec"], KUBERAY["job spec"])
    if job["spec"].get("clusterSelector") != {"ray.io/cluster": cluster["metadata"]["name"]}:
        problems.append("the job is for another cluster")
    try:
        named = {**cluster, "metadata": {**cluster["metadata"], "namespace": "default"}}
        derived = _derive_autoscaling_config_from_ray_cr(named)
    except Exception as error:
        return [*problems, f"Ray's autoscaler refuses it: {type(error).__name__}: {error}"]
    pools = {name: node["resources"].get("GPU", 0) for name, node in derived["available_node_types"].items()}
    if pools != {"headgroup": 0, "gpu": 1, "cpu": 0}:
        problems.append(f"the GPUs of the pools are {pools}")
    return problems


def _group(group: dict[str, Any]) -> Iterator[str]:
    """A group's pods: one container each, with the options of `ray start` that its operator passes on."""
    try:
        options = [text for name, value in group["rayStartParams"].items() for text in (f"--{name}", value)]
        start.make_context("ray start", options)
    except click.ClickException as error:
        yield error.format_message()
    pod = group["template"]["spec"]
    yield from _unknown("pod", pod, KUBERAY["pod"])
    (container,) = pod["containers"]
    yield from _unknown("container", container, KUBERAY["container"])
    if not container["image"].endswith(f"/ciq-ray:{__version__}-ray{ray_version()}"):
        yield f"the image {container['image']!r} is not of these versions"
    variables = {one["name"]: one["value"] for one in container["env"]}
    for name, pattern in VARIABLES.items():
        # the operator sets that by itself
        if name != "RAY_AUTH_MODE" and not re.fullmatch(pattern, variables.get(name, "")):
            yield f"{name} is {variables.get(name)!r}"
    if container["resources"]["limits"] != container["resources"]["requests"]:
        yield "limits and requests differ, of which Ray takes the limits"
    claims = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
    if {mount["name"] for mount in container["volumeMounts"]} != claims:
        yield "what is mounted is not what is claimed"
