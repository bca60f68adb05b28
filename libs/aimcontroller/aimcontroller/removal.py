"""Messages for an object that blocks a create: it is foreign, or its deletion does not finish.
Pure."""

from aimcontroller.projection import KubeObject


def removal(existing: KubeObject) -> str:
    """An object with metadata.deletionTimestamp goes once its finalizers are gone; only who set
    one removes it, so they are named."""
    finalizers = ", ".join(map(str, existing.body["metadata"].get("finalizers") or ()))
    held = (
        f", held by finalizer {finalizers}; if this persists, check that the controller that set"
        " it is running"
        if finalizers
        else ""
    )
    return f"{existing.key.kind} {existing.key.name} is being deleted{held}"


def is_of_former(owner: KubeObject, existing: KubeObject) -> bool:
    """Whether `existing` was made for a former object of the kind and name of `owner`. It goes by
    itself (garbage collection)."""
    return owner.uid not in existing.owners and existing.owner(owner.key.kind) == owner.key


def of_former(owner: KubeObject, existing: KubeObject) -> str:
    """Of an object for which `is_of_former` holds."""
    whose = f"created for the former {owner.key.kind} {owner.key.name}"
    if existing.deleting:
        return f"{removal(existing)} ({whose})"
    return f"{existing.key.kind} {existing.key.name}, {whose}, is being removed"


def of_another(owner: KubeObject, existing: KubeObject) -> str:
    """Of an object that has the name of one that `owner` needs."""
    return (
        f"{existing.key.kind} {existing.key.name} exists and was not made for {owner.key.kind}"
        f" {owner.key.name}; rename or delete one of them"
    )
