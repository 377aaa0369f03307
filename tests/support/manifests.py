"""The manifests of ``deploy/k8s/base`` as kubectl renders them, and what a container of them would find."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.support.workspace import ROOT

KUBERNETES = ROOT / "deploy/k8s"
BASE = KUBERNETES / "base"
# Container -> the process in it, by the name of its folder under ``services/`` (or ``pharos-bus``).
PROCESS_OF = {
    "gateway": "gateway",
    "scheduler": "scheduler",
    "bus": "pharos-bus",
    "history": "history",
    "search": "gpu-embedder",
    "worker": "gpu-embedder",
}
Document = dict[str, Any]


def render(folder: Path) -> list[Document]:
    """What ``kubectl apply -k`` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise RuntimeError("kubectl is missing: install it, the manifests are rendered with its kustomize")
    command = [kubectl, "kustomize", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


@functools.cache
def base() -> tuple[Document, ...]:
    return tuple(render(BASE))


def documents(kind: str) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in base() if each["kind"] == kind}


def pod(name: str) -> Document:
    template: Document = documents("Deployment")[name]["spec"]["template"]
    return template


class Container(msgspec.Struct, frozen=True):
    """A container of the base, with the pod that it is in."""

    name: str
    pod: Document
    spec: Document


def containers(kind: str = "containers") -> dict[str, Container]:
    found = [
        Container(spec["name"], pod(name), spec)
        for name in documents("Deployment")
        for spec in pod(name)["spec"].get(kind, ())
    ]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def every_container() -> dict[str, Container]:
    return {**containers(), **containers("initContainers")}


def config_data(container: Container) -> dict[str, str]:
    data: dict[str, str] = {}
    for source in container.spec.get("envFrom", ()):
        data |= documents("ConfigMap")[source["configMapRef"]["name"]]["data"]
    return data


def own_variables(container: Container) -> dict[str, Document]:
    return {each["name"]: each for each in container.spec.get("env", ())}


def mounted_secrets(container: Container) -> dict[str, str]:
    """Path in the container -> key of the secret."""
    volumes = {each["name"]: each for each in container.pod["spec"]["volumes"]}
    return {
        f"{mount['mountPath']}/{item['path']}": item["key"]
        for mount in container.spec["volumeMounts"]
        for item in volumes[mount["name"]].get("secret", {}).get("items", ())
    }


def environ(container: Container, secret_file: Callable[[str], str]) -> dict[str, str]:
    """What the process would find; *secret_file* gives a readable file for a mounted one."""
    found = config_data(container)
    files = mounted_secrets(container)
    for name, variable in own_variables(container).items():
        if "valueFrom" in variable:
            found[name] = "worker-7d9c6f5b8-x2x4z"
        elif name.endswith("_FILE"):
            found[name] = secret_file(files[variable["value"]])
        else:
            found[name] = variable["value"]
    return found
