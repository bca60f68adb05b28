"""Write the kustomize folders from the chart as helm renders it: `python -m tools.kustomize
deploy/kustomize`.

The base has the objects that both overlays share, and each overlay adds its own. Nothing is
repeated and nothing is patched. The CRDs are in a folder of their own, which no overlay includes:
`kubectl delete -k` of an overlay keeps them, and so every model and cache.
"""

import sys
from pathlib import Path

import yaml

from aimlab.testing.charts import OVERLAYS, Body, render

DEFINITION = "CustomResourceDefinition"
OF_HELM = frozenset({"helm.sh/chart", "helm.sh/resource-policy", "app.kubernetes.io/managed-by"})
HEAD = "# Written by `make chart` from deploy/charts/aim: change it there.\n"


def without_helm(body: Body) -> Body:
    """The object without the labels and annotations that only helm uses."""
    metadata = {**body["metadata"]}
    for field in ("labels", "annotations"):
        if field in metadata:
            metadata[field] = {
                key: value for key, value in metadata[field].items() if key not in OF_HELM
            }
            if not metadata[field]:
                del metadata[field]
    return body | {"metadata": metadata}


def folders(chart: Path) -> dict[str, str]:
    """The text of every file, by path."""
    rendered = {
        name: [
            without_helm(body) for body in render(chart, "--set=namespace.create=true", files=files)
        ]
        for name, files in OVERLAYS.items()
    }
    kinds = [body for body in next(iter(rendered.values())) if body["kind"] == DEFINITION]
    rendered = {
        name: [body for body in bodies if body["kind"] != DEFINITION]
        for name, bodies in rendered.items()
    }
    first, *others = rendered.values()
    shared = [body for body in first if all(body in other for other in others)]
    texts = _folder("crds", kinds, []) | _folder("base", shared, [])
    for name, bodies in rendered.items():
        texts |= _folder(
            f"overlays/{name}", [body for body in bodies if body not in shared], ["../../base"]
        )
    return texts


def _folder(folder: str, bodies: list[Body], under: list[str]) -> dict[str, str]:
    head = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [*under, "resources.yaml"],
    }
    return {
        f"{folder}/kustomization.yaml": HEAD + yaml.safe_dump(head, sort_keys=False),
        f"{folder}/resources.yaml": HEAD + yaml.safe_dump_all(bodies, sort_keys=False, width=160),
    }


def main() -> None:
    target = Path(sys.argv[1])
    for path, text in folders(target.parent / "charts" / "aim").items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
