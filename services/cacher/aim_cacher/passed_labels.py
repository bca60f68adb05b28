"""Labels that a cache passes on to the objects that are created for it. Pure."""

from collections.abc import Mapping

from aim_cacher.render import Body
from aimschema import labels
from aimschema.resources import JOB


def with_passed_labels(body: Body, passed: Mapping[str, str]) -> Body:
    """The object with labels that its cache passes on, and so with its pods. A queue holds a Job,
    not its pods."""
    if not passed:
        return body
    labelled = body | {"metadata": _add_labels(body["metadata"], passed)}
    if body["kind"] != JOB.kind:
        return labelled
    of_pods = {name: text for name, text in passed.items() if name != labels.KUEUE_QUEUE}
    template = body["spec"]["template"]
    pod = template | {"metadata": _add_labels(template["metadata"], of_pods)}
    return labelled | {"spec": body["spec"] | {"template": pod}}


def _add_labels(metadata: Body, passed: Mapping[str, str]) -> Body:
    return metadata | {"labels": {**passed, **metadata["labels"]}}
