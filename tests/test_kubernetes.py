"""deploy/kubernetes speaks only of what exists, and fits Kubernetes' own schemas.

No cluster was at hand where this was written: nothing here proves that it runs. The schemas are those of the
package kubernetes-validate, in their strict form, where a field that does not exist is an error; KEDA's
ScaledObject has no schema at hand and is checked by what stands here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from adapters.metrics import DECLARED
from app.commands.run import Consumer
from app.settings import load_settings, variables
from service.middleware import ALWAYS
from tests.support.kustomize import Manifest, containers, documents, named_files, resolved
from tests.support.prometheus import require_prometheus
from tests.test_compose import DOCKERFILE, command_line, parse, routes

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
#: The oldest release that is promised, and one that is newer than any.
VERSIONS = ("1.29", "1.33")
FOLDERS = {"base": FOLDER / "base", **{name: FOLDER / "overlays" / name for name in ("production", "gpu")}}
SECRETS = "/etc/simstream/secrets/"

RESOLVED: Mapping[str, list[Manifest]] = {name: resolved(folder) for name, folder in FOLDERS.items()}


def of_kind(kind: str, where: str = "gpu") -> dict[str, Manifest]:
    """Manifests of a kind by name; the overlay gpu holds all there are."""
    return {one["metadata"]["name"]: one for one in RESOLVED[where] if one["kind"] == kind}


def pods(where: str) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, pod and only container of each deployment."""
    for name, deployment in of_kind("Deployment", where).items():
        (container,) = containers(deployment)
        yield name, deployment["spec"]["template"]["spec"], container


def environment(where: str, container: Manifest) -> dict[str, str]:
    """What a container finds in its environment."""
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= of_kind("ConfigMap", where)[source["configMapRef"]["name"]]["data"]
    return found | {one["name"]: one["value"] for one in container.get("env", [])}


def secret_files(pod: Manifest) -> Iterator[tuple[str, str]]:
    """(secret, file) of what is mounted; of a whole secret all keys that the runbook names."""
    (volume,) = (one for one in pod["volumes"] if one["name"] == "secrets")
    for source in (one["secret"] for one in volume["projected"]["sources"]):
        if "items" in source:
            yield from ((source["name"], item["path"]) for item in source["items"])
        else:
            how = re.search(rf"create secret generic {source['name']} (.*)", RUNBOOK.replace("\\\n", ""))
            assert how, f"the runbook does not say how to make {source['name']}"
            yield from ((source["name"], name) for name in re.findall(r"--from-file=([\w-]+)=", how[1]))


# --- schemas -----------------------------------------------------------------------------------------------


def check(manifest: Manifest, version: str) -> None:
    """Raises kubernetes_validate.ValidationError; SchemaNotFoundError for a kind that Kubernetes has not."""
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema_of_its_kind(version: str) -> None:
    seen: set[str] = set()
    for manifest in (one for found in RESOLVED.values() for one in found):
        said = json.dumps(manifest, sort_keys=True)
        if said not in seen and manifest["kind"] != "ScaledObject":
            check(manifest, version)
        seen.add(said)
    assert len(seen) > 30


def misspelled(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}


def of_another_type(manifest: Manifest) -> None:
    manifest["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = {"percent": 10}


def without_a_selector(manifest: Manifest) -> None:
    del manifest["spec"]["selector"]


def at_the_wrong_place(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["readOnlyRootFilesystem"] = True


@pytest.mark.parametrize("broken", [misspelled, of_another_type, without_a_selector, at_the_wrong_place])
def test_a_broken_manifest_is_refused(broken: Any) -> None:
    (manifest, *_) = documents(FOLDER / "base" / "api.yaml")
    broken(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest, VERSIONS[-1])


def test_a_kind_that_does_not_exist_is_refused() -> None:
    manifest = {"apiVersion": "apps/v1", "kind": "Deploiment", "metadata": {"name": "api"}, "spec": {}}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check(manifest, VERSIONS[-1])


# --- what belongs together ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_a_kustomization_names_every_file_of_its_folder(name: str) -> None:
    assert set(FOLDERS[name].glob("*")) == named_files(FOLDERS[name])


def compared_with_kubectl(folder: Path, found: list[Manifest]) -> None:
    """That kubectl makes the same manifests of a folder."""
    command = ["kubectl", "kustomize", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def sorted_(manifests: Any) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in manifests)

    assert sorted_(yaml.safe_load_all(made)) == sorted_(found)


@pytest.mark.parametrize("name", FOLDERS)
def test_kubectl_makes_the_same_of_it(name: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here: what it makes of the overlays is not compared")
    compared_with_kubectl(FOLDERS[name], RESOLVED[name])


def test_every_selector_means_pods_that_are_there_and_every_consumer_has_its_own() -> None:
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"] for name, one in of_kind("Deployment").items()
    }
    assert set(labels) == {*Consumer, "trainer", "api"}

    def meant(selector: Mapping[str, str]) -> set[str]:
        return {name for name, own in labels.items() if selector.items() <= own.items()}

    for name, deployment in of_kind("Deployment").items():
        assert meant(deployment["spec"]["selector"]["matchLabels"]) == {name}
    for kind in ("Service", "PodDisruptionBudget"):
        for name, one in of_kind(kind).items():
            selector = one["spec"]["selector"]
            assert meant(selector.get("matchLabels", selector)) == {name}
    # A budget for what has one pod would keep its node from being emptied.
    assert set(of_kind("PodDisruptionBudget")) == set(labels) - {"trainer"}
    for name, policy in of_kind("NetworkPolicy").items():
        assert meant(policy["spec"]["podSelector"].get("matchLabels", {})), name
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for one in of_kind(kind).values():
            target = one["spec"]["scaleTargetRef"]["name"]
            assert "replicas" not in of_kind("Deployment")[target]["spec"], "applying would scale it back"


@pytest.mark.parametrize("where", FOLDERS)
def test_what_is_mounted_is_there(where: str) -> None:
    claims = of_kind("PersistentVolumeClaim", where)
    for name, pod, container in pods(where):
        volumes = {one["name"]: one for one in pod["volumes"]}
        mounted = {one["name"] for one in container["volumeMounts"]}
        assert mounted == set(volumes), name
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
    shared = claims["simstream-releases"]["spec"]["accessModes"]
    assert shared == ["ReadWriteMany"], "every process that encodes reads releases, on any node"


def test_a_policy_of_the_network_opens_ports_that_something_listens_on() -> None:
    ports = {port["containerPort"] for _, _, one in pods("base") for port in one["ports"]}
    for name, policy in of_kind("NetworkPolicy", "base").items():
        spec = policy["spec"]
        for rule in spec.get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= ports, name
    nothing = of_kind("NetworkPolicy", "base")["nothing"]["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def asks_the_api(deployment: str) -> bool:
    """Whether the network lets a deployment's pods send to the API, and the API's take it."""
    labels = of_kind("Deployment")[deployment]["spec"]["template"]["metadata"]["labels"]

    def means(selector: Mapping[str, Any], pod: Mapping[str, str]) -> bool:
        wanted: Mapping[str, str] = selector.get("matchLabels", {})
        return wanted.items() <= pod.items()

    def open_between(one: Mapping[str, str], way: str, end: str, other: Mapping[str, str]) -> bool:
        """Whether a policy of the pod `one` names the pod `other`, of its namespace, on the API's port."""
        return any(
            "podSelector" in peer
            and "namespaceSelector" not in peer
            and means(peer["podSelector"], other)
            and 8080 in {port["port"] for port in rule["ports"]}
            for policy in of_kind("NetworkPolicy").values()
            if means(policy["spec"]["podSelector"], one)
            for rule in policy["spec"].get(way, [])
            for peer in rule[end]
        )

    api = of_kind("Deployment")["api"]["spec"]["template"]["metadata"]["labels"]
    return open_between(labels, "egress", "to", api) and open_between(api, "ingress", "from", labels)


def test_commands_are_run_where_the_api_can_be_asked() -> None:
    named = set(re.findall(r"exec deploy/(\w+) -- simstream", RUNBOOK))
    assert named == {name for name in of_kind("Deployment") if asks_the_api(name)}
    assert not asks_the_api("embeddings")


@pytest.mark.parametrize("where", FOLDERS)
def test_the_network_lets_a_process_reach_the_stores_that_its_settings_name(where: str) -> None:
    (rule,) = of_kind("NetworkPolicy", where)["stores"]["spec"]["egress"]
    opened = {port["port"] for port in rule["ports"]}
    data = of_kind("ConfigMap", where)["simstream-settings"]["data"]
    for name in ("KAFKA__BOOTSTRAP_SERVERS", "QDRANT__URL", "REDIS__URL"):
        found = re.search(r":(\d+)(?:/|$)", data.get(f"SIMSTREAM_{name}", "stores:6379"))
        assert found, name
        assert int(found[1]) in opened, name


# --- what the code knows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", FOLDERS)
def test_every_environment_makes_valid_settings(where: str, tmp_path: Path) -> None:
    contents = {
        "kafka-options": '{"security.protocol": "SASL_SSL"}',
        "redis-url": "rediss://u:p@redis:6379/0",
    }
    for name, pod, container in pods(where):
        found = environment(where, container)
        files = {file for _, file in secret_files(pod)}
        for variable, value in found.items():
            if not variable.startswith("SIMSTREAM_"):
                raise AssertionError(f"{variable} is nobody's setting")
            if variable.endswith("_FILE"):
                assert variable.removesuffix("_FILE") in variables()
                file = value.removeprefix(SECRETS)
                assert file in files, f"{name}: {value} is not mounted"
                (tmp_path / file).write_text(contents.get(file, ""))
                found[variable] = str(tmp_path / file)
            else:
                assert variable in variables()
        settings = load_settings(found)
        assert settings.metrics.host == settings.service.host == "0.0.0.0"  # noqa: S104  in a pod of its own


def heard(found: list[Manifest]) -> tuple[bool, bool]:
    """Whether processes read opinions, and whether somebody hears them."""
    named = {(one["kind"], one["metadata"]["name"]): one for one in found}
    settings = named["ConfigMap", "simstream-settings"]["data"]
    value = {name: settings[name] for name in ("SIMSTREAM_OPINIONS__CONSUME",) if name in settings}
    spec = named["Deployment", "opinions"]["spec"]
    return load_settings(value).opinions.consume, spec.get("replicas", 1) > 0


@pytest.mark.parametrize("where", FOLDERS)
def test_opinions_are_heard_only_where_they_are_read(where: str) -> None:
    """`simstream consume opinions` refuses to start without the setting, which costs every process a read."""
    assert heard(RESOLVED[where]) == (False, False)


def test_the_runbook_s_overlay_has_opinions_heard_and_read(tmp_path: Path) -> None:
    (said,) = (one for one in re.findall(r"```yaml\n(.*?)```", RUNBOOK, re.DOTALL) if "opinions" in one)
    base = os.path.relpath(FOLDERS["gpu"], tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(f"namespace: simstream\nresources: [{base}]\n{said}")
    found = resolved(tmp_path.resolve())
    assert heard(found) == (True, True)
    for half in ("replicas", "patches"):
        spec = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())
        (tmp_path / "half").mkdir(exist_ok=True)
        spec["resources"] = [f"../{base}"]
        (tmp_path / "half" / "kustomization.yaml").write_text(yaml.safe_dump({**spec, half: []}))
        reads, hears = heard(resolved((tmp_path / "half").resolve()))
        assert reads != hears, "what is missing would not be found"
    if shutil.which("kubectl") is not None:
        compared_with_kubectl(tmp_path.resolve(), found)


def test_a_setting_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(ValueError, match="SIMSTREAM_KAFKA__SERVERS is not a setting"):
        load_settings({"SIMSTREAM_KAFKA__SERVERS": "kafka:9092"})


@pytest.mark.parametrize("where", FOLDERS)
def test_commands_probes_ports_and_images_exist(where: str) -> None:
    exporter, answered = "/metrics", routes() & ALWAYS
    for name, pod, container in pods(where):
        parse(command_line(), container["args"])
        settings = environment(where, container)
        listens = {one["name"]: one["containerPort"] for one in container["ports"]}
        assert listens.pop("metrics") == int(settings["SIMSTREAM_METRICS__PORT"])
        if listens:
            assert listens == {"http": int(settings["SIMSTREAM_SERVICE__PORT"])}, name
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == ("http" if listens else "metrics")
            assert asked["path"] in (answered if listens else {exporter}), name
        assert (
            container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 120
        )
        image, _, tag = container["image"].partition(":")
        assert image == "simstream"
        assert re.search(rf"^FROM runtime AS {tag.rpartition('-')[2]}$", DOCKERFILE, re.M), container["image"]
        assert (
            f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in DOCKERFILE
        )
    service = of_kind("Service", where)["api"]["spec"]["ports"][0]
    address = of_kind("ConfigMap", where)["simstream-settings"]["data"]["SIMSTREAM_SERVICE__URL"]
    assert address == f"http://api:{service['port']}"


@pytest.mark.parametrize("where", FOLDERS)
def test_no_pod_can_do_more_than_it_has_to(where: str) -> None:
    for name, pod, container in pods(where):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"], name
        assert "cpu" in resources["requests"]
        # Longer than it takes to settle what is in flight (the trailing commit included) and to commit.
        assert pod["terminationGracePeriodSeconds"] >= 30
        assert all("sizeLimit" in one["emptyDir"] for one in pod["volumes"] if "emptyDir" in one)
    assert not of_kind("Secret", where), "secrets are nobody's to commit"


def test_api_keys_are_seen_by_the_api_alone() -> None:
    who = {name for name, pod, _ in pods("gpu") if ("simstream-api", "api-keys") in set(secret_files(pod))}
    assert who == {"api"}


# --- scaling on lag ----------------------------------------------------------------------------------------


_SCALED = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "fallback"} | {
    "advanced",
    "triggers",
}


def faults(scaled: Manifest, partitions: int) -> Iterator[str]:
    """What KEDA, or the consumer's topics, would not agree with."""
    spec = scaled["spec"]
    if set(spec) - _SCALED:
        yield f"unknown: {set(spec) - _SCALED}"
    name = spec["scaleTargetRef"]["name"]
    if name not in list(Consumer):
        yield f"{name} reads no topic"
    if not 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] <= partitions:
        yield f"between {spec['minReplicaCount']} and {spec['maxReplicaCount']} of {partitions} partitions"
    (lag,) = (one for one in DECLARED if one.name == "simstream_lag_records")
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        if trigger["type"] != "prometheus" or set(metadata) != {"serverAddress", "query", "threshold"}:
            yield "not a question to Prometheus"
            continue
        if any(not isinstance(value, str) for value in metadata.values()):
            yield "metadata is text"
        if lag.name not in metadata["query"] or f'consumer="{name}"' not in metadata["query"]:
            yield "another consumer's lag, or nobody's"
        by = {
            label.strip()
            for found in re.findall(r"by \(([^)]*)\)", metadata["query"])
            for label in found.split(",")
        }
        if not by <= set(lag.labels):
            yield f"no such label: {by - set(lag.labels)}"


def scaled_objects() -> list[tuple[Manifest, int]]:
    return [
        (one, int(of_kind("ConfigMap", where)["simstream-settings"]["data"]["SIMSTREAM_KAFKA__PARTITIONS"]))
        for where in ("production", "gpu")
        for one in of_kind("ScaledObject", where).values()
    ]


def test_consumers_are_scaled_on_their_own_lag_up_to_the_partitions() -> None:
    assert {one["metadata"]["name"] for one, _ in scaled_objects()} == set(Consumer) - {
        Consumer.INSIGHTS,
        Consumer.OPINIONS,
    }
    for scaled, partitions in scaled_objects():
        assert list(faults(scaled, partitions)) == [], scaled["metadata"]["name"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"maxReplicaCount": 12', '"maxReplicaCount": 13'),
        ('"minReplicaCount": 2', '"minReplicaCount": 0'),
        ("simstream_lag_records", "simstream_lag"),
        ("(group, topic, partition)", "(group, topics, partition)"),
        ('consumer=\\"embeddings\\"', 'consumer=\\"products\\"'),
        ('"pollingInterval"', '"pollInterval"'),
        ('"threshold": "500"', '"threshold": 500'),
    ],
)
def test_a_wrong_scaling_would_be_found(old: str, new: str) -> None:
    said = json.dumps(of_kind("ScaledObject", "production")["embeddings"])
    assert said.count(old) == 1
    assert list(faults(json.loads(said.replace(old, new)), 12))


def test_prometheus_understands_what_keda_asks(tmp_path: Path) -> None:
    require_prometheus()
    rules = [
        {"record": f"asked:{number}", "expr": scaled["spec"]["triggers"][0]["metadata"]["query"]}
        for number, (scaled, _) in enumerate(scaled_objects())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "keda", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
