"""The Kustomize base, rendered: every document is valid, and agrees with the code."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from pharos_contracts import rpc
from pharos_contracts.streams import BusLimits, GiB, MiB, Storage, declare
from pharos_service.settings import InvalidSettings, ServiceSettings, load, table
from tests.support.manifests import (
    BASE,
    KUBERNETES,
    PROCESS_OF,
    Container,
    Document,
    base,
    config_data,
    containers,
    documents,
    environ,
    every_container,
    mounted_secrets,
    own_variables,
    pod,
    render,
)
from tests.support.settings_structs import PROCESSES, settings_struct, variables
from tests.support.workspace import ROOT

OLDEST_KUBERNETES = "1.30"  # the first with a `sleep` that needs no shell in the image

SERVICES = [name for name in PROCESS_OF if name != "bus"]
each_service = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture
def secret_file(tmp_path: Path) -> Callable[[str], str]:
    contents = {"database-url": "postgresql://pharos:secret@postgresql:5432/pharos"}

    def write(key: str) -> str:
        path = tmp_path / key
        path.write_text(contents.get(key, "0123456789abcdef" * 3))
        return str(path)

    return write


def settings_of(container: Container, secret_file: Callable[[str], str]) -> ServiceSettings:
    return load(settings_struct(PROCESS_OF[container.name]), environ(container, secret_file))


# --- valid documents ---------------------------------------------------------------------------------------


def mistake(document: Document, version: str) -> str | None:
    """What is wrong with *document* for a Kubernetes of *version*; None when nothing is."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"unknown kind {document['apiVersion']} {document['kind']}"
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']} {document['metadata']['name']}: {error}"
    return None


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_every_document_is_valid(version: str) -> None:
    assert [found for each in base() if (found := mistake(each, version))] == []


def rendered_with(folder: Path, extra: str) -> list[Document]:
    shutil.copytree(BASE, folder / "base")
    (folder / "extra.yaml").write_text(extra)
    (folder / "kustomization.yaml").write_text("resources: [base, extra.yaml]\n")
    return render(folder)


def test_an_unknown_kind_fails(tmp_path: Path) -> None:
    extra = "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: typo}\n"
    found = [mistake(each, OLDEST_KUBERNETES) for each in rendered_with(tmp_path, extra)]
    assert [each for each in found if each] == ["unknown kind apps/v1 Deploymnet"]


def test_an_unknown_field_fails(tmp_path: Path) -> None:
    extra = "apiVersion: v1\nkind: Service\nmetadata: {name: typo}\nspec: {port: []}\n"
    (found,) = filter(None, [mistake(each, OLDEST_KUBERNETES) for each in rendered_with(tmp_path, extra)])
    assert "port" in found


def test_a_wrong_type_fails(tmp_path: Path) -> None:
    extra = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: typo}\ndata: {PHAROS_PORT: 8000}\n"
    (found,) = filter(None, [mistake(each, OLDEST_KUBERNETES) for each in rendered_with(tmp_path, extra)])
    assert "8000" in found


def test_the_base_holds_the_services_and_nothing_else() -> None:
    kinds = sorted((each["kind"], each["metadata"]["name"].split("-")[0]) for each in base())
    assert kinds == sorted(
        [
            ("Namespace", "pharos"),
            ("ConfigMap", "settings"),
            ("Service", "gateway"),
            *(("Deployment", name) for name in SERVICES),
        ]
    )
    assert {each["metadata"]["namespace"] for each in base() if each["kind"] != "Namespace"} == {"pharos"}
    assert {each["metadata"]["labels"]["app.kubernetes.io/part-of"] for each in base()} == {"pharos"}


# --- settings ----------------------------------------------------------------------------------------------


def test_every_shared_setting_is_one_that_some_service_reads() -> None:
    known = set().union(*(variables(settings_struct(process)) for process in PROCESSES))
    (shared,) = documents("ConfigMap").values()
    assert set(shared["data"]) - known == set()


def unknown_variables(container: Container) -> set[str]:
    return set(own_variables(container)) - variables(settings_struct(PROCESS_OF[container.name]))


@pytest.mark.parametrize("name", PROCESS_OF)
def test_every_setting_of_a_container_is_one_that_its_service_reads(name: str) -> None:
    assert unknown_variables(every_container()[name]) == set()


def test_a_misspelt_setting_is_found() -> None:
    spec = {
        "env": [
            {"name": "PHAROS_NATS_PASWORD_FILE", "value": "/x"},
            {"name": "PHAROS_NATS_URL", "value": "x"},
        ]
    }
    assert unknown_variables(Container("scheduler", {}, spec)) == {"PHAROS_NATS_PASWORD_FILE"}


@pytest.mark.parametrize("name", PROCESS_OF)
def test_every_value_is_accepted_by_the_service(name: str, secret_file: Callable[[str], str]) -> None:
    container = every_container()[name]
    try:
        settings_of(container, secret_file)
    except InvalidSettings as error:
        pytest.fail(f"{name}: {error}")


@pytest.mark.parametrize("name", PROCESS_OF)
def test_secrets_are_files_and_their_values_are_nowhere(name: str) -> None:
    container = every_container()[name]
    secret = {row.variable for row in table(settings_struct(PROCESS_OF[name])) if row.secret}
    assert secret & set(config_data(container)) == set()
    for variable, entry in own_variables(container).items():
        if variable in secret:
            assert "secretKeyRef" in entry["valueFrom"]
        if variable.removesuffix("_FILE") in secret and variable.endswith("_FILE"):
            assert entry["value"] in mounted_secrets(container)
    assert documents("Secret") == {}


def test_a_pod_mounts_only_the_secrets_that_it_reads() -> None:
    for container in containers().values():
        read = {entry.get("value") for entry in own_variables(container).values()}
        assert set(mounted_secrets(container)) <= read, container.name


def test_the_instructions_create_every_secret() -> None:
    readme = (KUBERNETES / "README.md").read_text()
    wanted = {key for container in every_container().values() for key in mounted_secrets(container).values()}
    assert wanted == set(re.findall(r"--from-literal=([\w-]+)=", readme))


def test_kubernetes_adds_no_variables_of_its_own_making() -> None:
    """A Service called ``pharos`` would set PHAROS_PORT to ``tcp://…``."""
    assert all(pod(name)["spec"]["enableServiceLinks"] is False for name in SERVICES)


def test_the_embedded_store_is_not_used(secret_file: Callable[[str], str]) -> None:
    """One process at a time may open it."""
    for name in ("search", "worker"):
        settings: Any = settings_of(containers()[name], secret_file)
        assert settings.uses_server
        assert settings.qdrant_url


# --- ports and probes --------------------------------------------------------------------------------------


def port_of(name: str, settings: Any) -> int:
    return int(settings.port if name == "gateway" else settings.health_port)


def host_of(name: str, settings: Any) -> str:
    return str(settings.host if name == "gateway" else settings.health_host)


@each_service
def test_probes_ask_the_port_that_the_service_listens_on(
    name: str, secret_file: Callable[[str], str]
) -> None:
    container = containers()[name]
    settings = settings_of(container, secret_file)
    assert host_of(name, settings) == "0.0.0.0"
    (port,) = container.spec["ports"]
    assert port["containerPort"] == port_of(name, settings)
    paths = {"livenessProbe": "/livez", "readinessProbe": "/readyz", "startupProbe": "/livez"}
    for probe, path in paths.items():
        assert container.spec[probe]["httpGet"] == {"path": path, "port": port["name"]}, probe


def test_the_gateway_is_reached_through_its_service() -> None:
    (service,) = documents("Service").values()
    selector = service["spec"]["selector"]
    chosen = [name for name in SERVICES if selector.items() <= pod(name)["metadata"]["labels"].items()]
    assert chosen == ["gateway"]
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in {each["name"] for each in containers()["gateway"].spec["ports"]}


def test_a_model_has_five_minutes_to_load() -> None:
    for name in ("search", "worker"):
        probe = containers()[name].spec["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


# --- resources, rights, placement --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESS_OF)
def test_every_container_has_requests_and_limits(name: str) -> None:
    resources = every_container()[name].spec["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert set(resources["requests"]) == set(resources["limits"])


def test_the_gateway_lives_in_512_mib() -> None:
    assert containers()["gateway"].spec["resources"]["limits"]["memory"] == "512Mi"


@pytest.mark.parametrize("name", PROCESS_OF)
def test_every_container_runs_without_rights(name: str) -> None:
    container = every_container()[name]
    assert container.spec["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    context = container.pod["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container.pod["spec"]["automountServiceAccountToken"] is False


@each_service
def test_the_user_is_the_one_of_the_image(name: str) -> None:
    dockerfile = (ROOT / f"deploy/images/{PROCESS_OF[name]}.Dockerfile").read_text()
    context = pod(name)["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile


@each_service
def test_what_a_service_writes_is_on_a_volume_with_a_limit(
    name: str, secret_file: Callable[[str], str]
) -> None:
    container = containers()[name]
    home = settings_of(container, secret_file).home
    mounts = {each["mountPath"]: each["name"] for each in container.spec["volumeMounts"]}
    volumes = {each["name"]: each for each in container.pod["spec"]["volumes"]}
    for path in (home, "/tmp"):
        assert "sizeLimit" in volumes[mounts[path]]["emptyDir"]


def test_workers_and_only_workers_take_a_gpu(secret_file: Callable[[str], str]) -> None:
    for name, container in containers().items():
        resources, spec = container.spec["resources"], container.pod["spec"]
        if name == "worker":
            assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
            assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
            assert spec["tolerations"] == [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            ]
        else:
            assert "nvidia.com/gpu" not in resources["limits"]
            assert not {"nodeSelector", "tolerations"} & set(spec)
    worker: Any = settings_of(containers()["worker"], secret_file)
    search: Any = settings_of(containers()["search"], secret_file)
    assert (worker.device, search.device) == ("cuda", "cpu")


def test_a_new_worker_waits_for_the_gpu_of_the_old_one() -> None:
    strategy = documents("Deployment")["worker"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_one_history_at_a_time_changes_the_schema() -> None:
    spec = documents("Deployment")["history"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_gateway_and_a_scheduler_may_be_lost() -> None:
    assert all(documents("Deployment")[name]["spec"]["replicas"] >= 2 for name in ("gateway", "scheduler"))


@each_service
def test_an_image_is_built_from_a_dockerfile_that_exists(name: str) -> None:
    repository, _, tag = containers()[name].spec["image"].rpartition(":")
    assert repository == f"ghcr.io/pharos/{PROCESS_OF[name]}"
    assert tag.endswith("-cpu") is (name == "search")
    assert (ROOT / f"deploy/images/{PROCESS_OF[name]}.Dockerfile").exists()


def test_the_embedder_is_told_its_role() -> None:
    assert {name: each.spec["args"] for name, each in containers().items() if "args" in each.spec} == {
        "search": ["--role", "search"],
        "worker": ["--role", "worker"],
    }
    assert importlib.util.find_spec("pharos_embedder.__main__") is not None


def test_the_bus_is_made_as_declared_before_a_scheduler_starts() -> None:
    bus = containers("initContainers")["bus"]
    assert bus.spec["image"] == containers()["scheduler"].spec["image"]
    program, *arguments = bus.spec["command"]
    assert program in {each.name for each in entry_points(group="console_scripts")}
    usage = subprocess.run(
        [Path(sys.executable).parent / program, *arguments, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert usage.returncode == 0, usage.stderr
    assert arguments == ["apply"]


# --- the bus, by name --------------------------------------------------------------------------------------


def texts() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "deploy").rglob("*")):
        if path.suffix in {".yaml", ".yml", ".md", ".env", ".Dockerfile", ".conf"} and path.is_file():
            yield str(path.relative_to(ROOT)), path.read_text()


BUS = declare(BusLimits())
SUBJECTS = [subject.split(".") for stream in BUS.streams for subject in stream.subjects]
ROOTS = "|".join(sorted({subject[0] for subject in SUBJECTS if subject[0].isalpha()} | {"rpc"}))
NAMES = {
    "stream": {stream.name for stream in BUS.streams},
    "consumer": {consumer.name for consumer in BUS.consumers},
}


def covers(declared: list[str], used: list[str]) -> bool:
    """Whether messages under *used* may be stored under *declared*."""
    for position, token in enumerate(declared):
        if token == ">":
            return len(used) > position
        if position >= len(used):
            return False
        if used[position] == ">":
            return True
        if "*" not in (token, used[position]) and token != used[position]:
            return False
    return len(used) == len(declared)


def unknown_bus_names(text: str) -> set[str]:
    """Subjects, streams and consumers in *text* that the contracts do not declare."""
    unknown = set()
    for subject in re.findall(rf"(?<![\w./-])(?:{ROOTS})\.[\w*>.-]*[\w*>]", text):
        known = subject in rpc.RPC_SUBJECTS or any(covers(each, subject.split(".")) for each in SUBJECTS)
        if not known:
            unknown.add(subject)
    for kind, name in re.findall(r"^\s*(?:-\s*)?(stream|consumer):\s*[\"']?([\w-]+)", text, re.MULTILINE):
        if name not in NAMES[kind]:
            unknown.add(name)
    return unknown


def test_deploy_names_only_subjects_streams_and_consumers_that_are_declared() -> None:
    assert {path: found for path, text in texts() if (found := unknown_bus_names(text))} == {}


def test_a_wrong_name_of_the_bus_is_found() -> None:
    text = (
        "stream: WORKS\n  consumer: workers-default\n"
        "# work.gpu.> and events.job.default.> and cmd.ingset.*\nrpc.serach"
    )
    assert unknown_bus_names(text) == {"WORKS", "cmd.ingset.*", "rpc.serach"}


# --- the servers by reference ------------------------------------------------------------------------------


def nats_values() -> Mapping[str, Any]:
    values: Mapping[str, Any] = yaml.safe_load((KUBERNETES / "nats-values.yaml").read_text())["config"]
    return values


def quantity(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": MiB, "Gi": GiB}[unit]


def test_the_bus_has_room_for_every_stream_at_its_limit() -> None:
    jetstream = nats_values()["jetstream"]
    room = {
        Storage.FILE: quantity(jetstream["fileStore"]["pvc"]["size"]),
        Storage.MEMORY: quantity(jetstream["memoryStore"]["maxSize"]),
    }
    for storage, size in room.items():
        assert sum(each.max_bytes for each in BUS.streams if each.storage is storage) < size


def test_the_bus_syncs_always_and_has_as_many_servers_as_streams_have_copies(
    secret_file: Callable[[str], str],
) -> None:
    settings: Any = settings_of(every_container()["bus"], secret_file)
    assert nats_values()["jetstream"]["merge"]["sync_interval"] == "always"
    assert nats_values()["cluster"]["replicas"] >= settings.bus_replicas
    (user,) = nats_values()["merge"]["authorization"]["users"]
    assert user["user"] == settings.nats_user
