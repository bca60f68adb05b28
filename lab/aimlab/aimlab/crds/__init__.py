"""The laptop cluster's own CRDs for KServe and the Gateway API, small and permissive; the real
ones can take their place."""

from importlib import resources

from aimctl.manifests import documents
from aimlab.kinds import Body


def bundled_crds() -> list[Body]:
    """The CustomResourceDefinitions, to be created or applied."""
    found: list[Body] = []
    for file in sorted(resources.files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            found += documents(file.read_text())
    return found
