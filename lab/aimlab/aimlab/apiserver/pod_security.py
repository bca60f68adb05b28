"""Pod Security admission: what the levels `baseline` and `restricted` do not let into a namespace
that enforces one by label (Kubernetes, "Pod Security Standards"). Pure.

Held to a real server in tests/apiserver/transcripts/pod-security.jsonl. A version in the label is
printed and otherwise taken as `latest`; Windows pods and
the old annotations are not known.
"""

from collections.abc import Callable, Iterable, Iterator

from aimlab.apiserver.errors import ApiError, object_details
from aimlab.apiserver.objects import Json, Obj, dig

ENFORCE, WARN = "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn"
LEVELS = ("privileged", "baseline", "restricted")
CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    }
)
SELINUX_TYPES = frozenset(
    {"container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)
VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
PROFILES = frozenset({"RuntimeDefault", "Localhost"})
Violation = tuple[str, str]
"""What is not allowed, and who sets it."""


def require(namespace: Obj, name: str, spec: Obj) -> None:
    """ApiError 403 where the namespace does not take the pod."""
    policy, found = _policy(namespace, ENFORCE), violations(_level(namespace, ENFORCE), spec)
    if found:
        why = f'violates PodSecurity "{policy}": {_violation_text(found)}'
        text = f'pods "{name}" is forbidden: {why}'
        raise ApiError(403, "Forbidden", text, object_details("", "pods", name))


def warnings(namespace: Obj, spec: Obj) -> list[str]:
    """The warnings of a namespace for a pod, or a workload's template, that violates its level."""
    label = WARN if dig(namespace, "metadata", "labels", WARN) else ENFORCE
    found = violations(_level(namespace, label), spec)
    return (
        [f'would violate PodSecurity "{_policy(namespace, label)}": {_violation_text(found)}']
        if found
        else []
    )


def _level(namespace: Obj, label: str) -> str:
    level = dig(namespace, "metadata", "labels", label)
    return level if level in LEVELS else "privileged"


def _policy(namespace: Obj, label: str) -> str:
    version = dig(namespace, "metadata", "labels", f"{label}-version") or "latest"
    return f"{_level(namespace, label)}:{version}"


def _violation_text(found: Iterable[Violation]) -> str:
    return ", ".join(f"{what} ({who})" for what, who in found)


def violations(level: str, spec: Obj) -> list[Violation]:
    """In the order of the server: baseline before restricted, each by name."""
    checks: tuple[Callable[[Obj], Iterable[Violation]], ...] = ()
    if level == "baseline":
        checks = BASELINE
    if level == "restricted":
        checks = tuple(check for check in BASELINE if check not in STRICTER) + RESTRICTED
    return [found for check in checks for found in check(spec)]


# --- who sets what ---


def _containers(spec: Obj) -> list[Obj]:
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind) or []]


def _security(holder: Obj, *path: str) -> Json:
    return dig(holder, "securityContext", *path)


def _quote_items(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _several(word: str, items: list[str]) -> str:
    return word if len(items) == 1 else f"{word}s"


def _named_containers(names: list[str]) -> str:
    return f"{_several('container', names)} {_quote_items(names)}"


def _setters(spec: Obj, is_bad: Callable[[Obj], bool]) -> str:
    """The pod and the containers that do it themselves; empty where none does."""
    names = [container["name"] for container in _containers(spec) if is_bad(container)]
    parts = (["pod"] if is_bad(spec) else []) + ([_named_containers(names)] if names else [])
    return " and ".join(parts)


def _values(spec: Obj, *path: str) -> set[str]:
    found = (_security(holder, *path) for holder in (spec, *_containers(spec)))
    return {str(value) for value in found if value is not None}


# --- baseline ---


def _app_armor(spec: Obj) -> Iterator[Violation]:
    bad = sorted(_values(spec, "appArmorProfile", "type") - PROFILES)
    if bad:
        who = _setters(spec, lambda holder: _security(holder, "appArmorProfile", "type") in bad)
        what = f"forbidden AppArmor {_several('profile', bad)}"
        yield what, f"{who} must not set AppArmor profile type to {_quote_items(bad)}"


def _beyond(container: Obj, allowed: frozenset[str]) -> list[str]:
    return [one for one in _security(container, "capabilities", "add") or [] if one not in allowed]


def _check_added(spec: Obj, allowed: frozenset[str]) -> str:
    names = [container["name"] for container in _containers(spec) if _beyond(container, allowed)]
    added = {one for container in _containers(spec) for one in _beyond(container, allowed)}
    what = f"must not include {_quote_items(sorted(added))} in securityContext.capabilities.add"
    return f"{_named_containers(names)} {what}" if names else ""


def _added_capabilities(spec: Obj) -> Iterator[Violation]:
    if who := _check_added(spec, CAPABILITIES):
        yield "non-default capabilities", who


def _host_namespaces(spec: Obj) -> Iterator[Violation]:
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if found:
        yield "host namespaces", ", ".join(f"{name}=true" for name in found)


def _host_paths(spec: Obj) -> Iterator[Violation]:
    names = [volume["name"] for volume in spec.get("volumes") or [] if volume.get("hostPath")]
    if names:
        yield "hostPath volumes", f"{_several('volume', names)} {_quote_items(names)}"


def _host_ports(spec: Obj) -> Iterator[Violation]:
    def ports(container: Obj) -> list[str]:
        found = (port.get("hostPort") for port in container.get("ports") or [])
        return [str(port) for port in found if port]

    names = [container["name"] for container in _containers(spec) if ports(container)]
    used = sorted({port for container in _containers(spec) for port in ports(container)})
    if names:
        uses = "uses" if len(names) == 1 else "use"
        yield (
            "hostPort",
            f"{_named_containers(names)} {uses} {_several('hostPort', used)} {', '.join(used)}",
        )


def _host_probes(spec: Obj) -> Iterator[Violation]:
    def hosts(container: Obj) -> set[str]:
        probes = [
            container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")
        ]
        handlers = [*probes, *(container.get("lifecycle") or {}).values()]
        found = (dig(one, kind, "host") for one in handlers for kind in ("httpGet", "tcpSocket"))
        return {host for host in found if host}

    names = sorted(container["name"] for container in _containers(spec) if hosts(container))
    used = sorted({host for container in _containers(spec) for host in hosts(container)})
    if names:
        uses = "uses" if len(names) == 1 else "use"
        what = "probe or lifecycle host"
        yield what, f"{_named_containers(names)} {uses} {_several(what, used)} {_quote_items(used)}"


def _check_privileged(spec: Obj) -> Iterator[Violation]:
    names = [one["name"] for one in _containers(spec) if _security(one, "privileged")]
    if names:
        yield (
            "privileged",
            f"{_named_containers(names)} must not set securityContext.privileged=true",
        )


def _has_own_users(spec: Obj) -> bool:
    """Root in a user namespace has no rights outside."""
    return spec.get("hostUsers") is False


def _any_proc_mount(spec: Obj) -> Iterator[Violation]:
    if not _has_own_users(spec):
        yield from _proc_mount(spec)


def _proc_mount(spec: Obj) -> Iterator[Violation]:
    def mount(container: Obj) -> str:
        return str(_security(container, "procMount") or "Default")

    names = [one["name"] for one in _containers(spec) if mount(one) != "Default"]
    used = sorted({mount(one) for one in _containers(spec)} - {"Default"})
    if names:
        what = f"must not set securityContext.procMount to {_quote_items(used)}"
        yield "procMount", f"{_named_containers(names)} {what}"


def _selinux(spec: Obj) -> Iterator[Violation]:
    def wrong(holder: Obj) -> list[str]:
        options = _security(holder, "seLinuxOptions") or {}
        kind = options.get("type")
        found = [] if not kind or kind in SELINUX_TYPES else [f"type {kind}"]
        return found + [name for name in ("user", "role") if options.get(name)]

    who = _setters(spec, lambda holder: bool(wrong(holder)))
    if who:
        parts = {part for holder in (spec, *_containers(spec)) for part in wrong(holder)}
        kinds = sorted(part.removeprefix("type ") for part in parts if part.startswith("type "))
        problems = [f"{_several('type', kinds)} {_quote_items(kinds)}"] if kinds else []
        problems += [f"{name} may not be set" for name in ("user", "role") if name in parts]
        what = f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(problems)}"
        yield "seLinuxOptions", what


def _set_seccomp(spec: Obj) -> Iterator[Violation]:
    bad = sorted(_values(spec, "seccompProfile", "type") - PROFILES)
    if bad:
        who = _setters(spec, lambda holder: _security(holder, "seccompProfile", "type") in bad)
        what = f"must not set securityContext.seccompProfile.type to {_quote_items(bad)}"
        yield "seccompProfile", f"{who} {what}"


def _sysctls(spec: Obj) -> Iterator[Violation]:
    names = [one["name"] for one in _security(spec, "sysctls") or [] if one["name"] not in SYSCTLS]
    if names:
        yield "forbidden sysctls", ", ".join(names)


def _host_process(spec: Obj) -> Iterator[Violation]:
    who = _setters(spec, lambda holder: bool(_security(holder, "windowsOptions", "hostProcess")))
    if who:
        yield "hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true"


# --- restricted ---


def _privilege_escalation(spec: Obj) -> Iterator[Violation]:
    field = "allowPrivilegeEscalation"
    names = [one["name"] for one in _containers(spec) if _security(one, field) is not False]
    if names:
        what = f"{_named_containers(names)} must set securityContext.{field}=false"
        yield f"{field} != false", what


def _restricted_capabilities(spec: Obj) -> Iterator[Violation]:
    def drops_all(container: Obj) -> bool:
        return "ALL" in (_security(container, "capabilities", "drop") or [])

    names = [one["name"] for one in _containers(spec) if not drops_all(one)]
    drops = f'{_named_containers(names)} must set securityContext.capabilities.drop=["ALL"]'
    adds = _check_added(spec, frozenset({"NET_BIND_SERVICE"}))
    found = ([drops] if names else []) + ([adds] if adds else [])
    if found:
        yield "unrestricted capabilities", "; ".join(found)


def _volume_types(spec: Obj) -> Iterator[Violation]:
    def kind(volume: Obj) -> str:
        return next((key for key in volume if key != "name"), "emptyDir")

    bad = [volume for volume in spec.get("volumes") or [] if kind(volume) not in VOLUMES]
    if bad:
        names, kinds = [volume["name"] for volume in bad], sorted({kind(volume) for volume in bad})
        uses = "uses" if len(names) == 1 else "use"
        of_types = f"{_several('restricted volume type', kinds)} {_quote_items(kinds)}"
        yield (
            "restricted volume types",
            f"{_several('volume', names)} {_quote_items(names)} {uses} {of_types}",
        )


def _may_be_root(spec: Obj) -> Iterator[Violation]:
    what, field = "runAsNonRoot != true", "securityContext.runAsNonRoot"
    who = _setters(spec, lambda holder: _security(holder, "runAsNonRoot") is False)
    silent = [one["name"] for one in _containers(spec) if _security(one, "runAsNonRoot") is None]
    if _has_own_users(spec):
        return
    if who:
        yield what, f"{who} must not set {field}=false"
    elif silent and not _security(spec, "runAsNonRoot"):
        yield what, f"pod or {_named_containers(silent)} must set {field}=true"


def _is_root(spec: Obj) -> Iterator[Violation]:
    who = _setters(spec, lambda holder: _security(holder, "runAsUser") == 0)
    if who and not _has_own_users(spec):
        yield "runAsUser=0", f"{who} must not set runAsUser=0"


def _seccomp(spec: Obj) -> Iterator[Violation]:
    """Not unconfined, and set."""
    explicit = list(_set_seccomp(spec))
    yield from explicit
    silent = [
        container["name"]
        for container in _containers(spec)
        if _security(container, "seccompProfile") is None
    ]
    if silent and not explicit and _security(spec, "seccompProfile") is None:
        what = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield "seccompProfile", f"pod or {_named_containers(silent)} {what}"


BASELINE: tuple[Callable[[Obj], Iterable[Violation]], ...] = (
    _app_armor,
    _added_capabilities,
    _host_namespaces,
    _host_paths,
    _host_ports,
    _host_probes,
    _check_privileged,
    _any_proc_mount,
    _selinux,
    _set_seccomp,
    _sysctls,
    _host_process,
)
STRICTER = (_added_capabilities, _host_paths, _any_proc_mount, _set_seccomp)
"""Those that restricted replaces with its own check."""
RESTRICTED: tuple[Callable[[Obj], Iterable[Violation]], ...] = (
    _privilege_escalation,
    _restricted_capabilities,
    _proc_mount,
    _volume_types,
    _may_be_root,
    _is_root,
    _seccomp,
)
