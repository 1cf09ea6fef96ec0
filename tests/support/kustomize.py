"""Kustomize, as far as deploy/kubernetes uses it: resources, JSON patches, replicas, images, a namespace.

Reads   a folder with a kustomization.yaml
Writes  nothing
Never   passes over what it does not know: a field that kustomize would heed and this does not is an error

No kustomize comes by any package that CI installs. Where a kubectl is at hand, tests/test_kubernetes.py
compares.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches", "replicas"}
_CLUSTER_WIDE = {"Namespace"}


def documents(file: Path) -> list[Manifest]:
    """The manifests of one file."""
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


def named_files(folder: Path) -> set[Path]:
    """The files that a kustomization names, itself included."""
    spec = yaml.safe_load((folder / "kustomization.yaml").read_text())
    names = [*spec.get("resources", []), *(one["path"] for one in spec.get("patches", []))]
    return {folder / "kustomization.yaml", *(folder / name for name in names if name.endswith(".yaml"))}


def resolved(folder: Path) -> list[Manifest]:
    """The manifests that a folder stands for. Raises ValueError for what this does not know."""
    spec = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(spec) - _KNOWN
    if unknown:
        raise ValueError(f"{folder}: {', '.join(sorted(unknown))} is not known here: teach it, or do without")
    found: list[Manifest] = []
    for name in spec["resources"]:
        path = (folder / name).resolve()
        found += resolved(path) if path.is_dir() else documents(path)
    for patch in spec.get("patches", []):
        inline = patch.get("patch")
        operations = yaml.safe_load(inline or (folder / patch["path"]).read_text())
        targets = [one for one in found if _is_target(one, patch["target"])]
        if not targets:
            raise ValueError(f"{folder}: the patch {patch.get('path', inline)} meets nothing")
        for target in targets:
            for operation in copy.deepcopy(operations):
                _apply(target, **operation)
    for rule in spec.get("replicas", []):
        (deployment,) = (
            one for one in found if _is_target(one, {"kind": "Deployment", "name": rule["name"]})
        )
        deployment["spec"]["replicas"] = rule["count"]
    for manifest in found:
        if spec.get("namespace") and manifest["kind"] not in _CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = spec["namespace"]
        for container in containers(manifest):
            container["image"] = _image(container["image"], spec.get("images", []))
    return found


def containers(manifest: Manifest) -> list[Manifest]:
    """The containers that a manifest runs."""
    template = manifest.get("spec", {}).get("template", {})
    return list(template.get("spec", {}).get("containers", []))


def _is_target(manifest: Manifest, target: Manifest) -> bool:
    names = {"kind": manifest["kind"], "name": manifest["metadata"]["name"]}
    if set(target) - set(names):
        raise ValueError(f"a target by {sorted(target)} is not known here")
    return all(names[field] == value for field, value in target.items())


def _apply(manifest: Manifest, *, op: str, path: str, value: Any = None) -> None:
    """One operation of RFC 6902, in place. Raises KeyError or IndexError where the place is not there."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    place: Any = manifest
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        if (op, last) != ("add", "-"):
            raise ValueError(f"{op} {path} is not known here")
        place.append(value)
        return
    if op in ("replace", "remove") and last not in place:
        raise KeyError(f"{path} is not there to {op}")
    if op == "remove":
        del place[last]
    elif op in ("add", "replace"):
        place[last] = value
    else:
        raise ValueError(f"{op} is not known here")


def _image(image: str, rules: list[Manifest]) -> str:
    name, _, tag = image.partition(":")
    for rule in rules:
        if rule["name"] == name:
            return f"{rule.get('newName', name)}:{rule.get('newTag', tag)}"
    return image
