"""Reports about a template's discovery: condition Discovered, status fields, warnings. Pure.

While an older answer is in force, Discovered stays True and its message describes the new attempt.
"""

from dataclasses import replace
from typing import Any

from msgspec import structs

from aim_discovery.render import result_config_map
from aim_discovery.view import TemplateView
from aimcontroller.action import ApplyObject, DeleteObject
from aimcontroller.plan import (
    EMPTY_PLAN,
    MESSAGE_LENGTH,
    Plan,
    actions,
    condition,
    report,
    with_warning_event,
)
from aimschema import labels, reasons
from aimschema.discovery_result import Discovered


def report_running(view: TemplateView, message: str) -> Plan:
    """An attempt is running; where the last one failed, the condition still reports that."""
    if view.attempts:
        return report_attempt(
            view,
            False,
            reasons.DISCOVERY_FAILED,
            f"try {view.attempts} failed, try {view.attempts + 1} is in progress: {message}",
        )
    return report_attempt(view, None, reasons.AWAITING_DISCOVERY, message)


def report_attempt(
    view: TemplateView, status: bool | None, reason: str, message: str, **fields: Any
) -> Plan:
    """While an older answer is in force, report that; the message describes the new attempt."""
    all_fields = {**view.reported_fields, **fields}
    if view.answer is not None:
        return report_discovered(
            view,
            True,
            reasons.PROFILES_DISCOVERED,
            f"using the previous discovery result; for the changed image: {message}",
            **all_fields,
        )
    return report_discovered(view, status, reason, message, **all_fields)


def report_discovered(
    view: TemplateView, status: bool | None, reason: str, message: str, **fields: Any
) -> Plan:
    """Add two warnings, which also become Events: the image's labels do not support the template;
    another field manager keeps changing the answer."""
    candidates = {
        reasons.UNSUPPORTED_PROFILE: view.unsupported,
        reasons.CONTESTED: "" if view.field_conflict is None else view.field_conflict.message,
    }
    warnings = {key: text for key, text in candidates.items() if text}
    more = "".join(f"; {text}" for text in warnings.values())
    full_message = f"{message[: MESSAGE_LENGTH - len(more)]}{more}"
    discovered = condition(reasons.DISCOVERED, status, reason, full_message)
    if view.field_conflict is not None:
        discovered = structs.replace(discovered, conflict=view.field_conflict.fact)
    plan = report(view.template, discovered, **fields)
    for warning_reason, text in warnings.items():
        plan = with_warning_event(plan, warning_reason, text)
    return plan


def repeat_report(view: TemplateView) -> Plan:
    """Repeat the last report."""
    conditions = [] if view.last_condition is None else [view.last_condition]
    (repeated,) = report(view.template, *conditions, **view.reported_fields).reports
    return Plan(reports=(replace(repeated, warnings=view.last_warnings),))


def report_answer(view: TemplateView) -> Plan:
    """Report the answer; once the object shows it, delete the Job."""
    assert view.answer is not None
    sources = view.answer.sources
    profile = {name: value for name, value in _profile(view.answer).items() if value}
    message = (
        f"found {len(sources)} model source{'s' if len(sources) != 1 else ''}: {', '.join(sources)}"
    )
    reported = report_discovered(
        view,
        True,
        reasons.PROFILES_DISCOVERED,
        message,
        modelSources=sources,
        profile=profile or None,
        attempts=0,
    )
    is_recorded = (
        view.template.is_condition_true(reasons.DISCOVERED)
        and view.template.status.get("modelSources") == sources
    )
    attempt_inputs = (
        view.result.annotations.get(labels.ANNOTATION_TRIED, "") if view.result is not None else ""
    )
    config_map = result_config_map(
        view.template, view.data, view.inputs, attempt_inputs, view.config
    )
    job = view.job
    cleanup = EMPTY_PLAN
    if is_recorded and job is not None and not job.deleting:
        cleanup = actions(DeleteObject(job.key, job.uid))
    return actions(ApplyObject(config_map)) | reported | cleanup


def _profile(answer: Discovered) -> dict[str, Any]:
    metadata = answer.profile.metadata
    return {
        "engine": metadata.engine,
        "gpu": metadata.gpu,
        "precision": metadata.precision,
        "gpu_count": metadata.gpu_count,
        "metric": metadata.metric,
    }
