"""Variables of a cache that its Jobs do not get: those that load code, and the control plane's own.
Pure.

A ModelCache defines what to download. The right to create one must not include the right to run
code from a volume in a pod that holds credentials.
"""

import re
from dataclasses import replace

from aimcontroller.plan import Plan, with_note, with_warning_event
from aimschema import reasons
from aimschema.environment import PREFIX as ENV_PREFIX
from aimschema.kinds import FORBIDDEN_DOWNLOAD_ENV, EnvVar
from aimschema.messages import ReportedCondition

_IGNORED = re.compile(f"{FORBIDDEN_DOWNLOAD_ENV}|AIM_(?!S3_).*", re.DOTALL)
_SHORT_MESSAGE = "{message:.500}; ignored: {note}"
"""The note has the end of the message, so the rest is cut first."""
_MOST_NAMED = 5


def is_forbidden(name: str) -> bool:
    """Whether downloads of the cluster or of a namespace may not set it, in any case."""
    return is_ignored(name.upper()) or name.upper().startswith(ENV_PREFIX)


def is_ignored(name: str) -> bool:
    return _IGNORED.fullmatch(name) is not None


def warn_of_ignored(env: list[EnvVar], plan: Plan) -> Plan:
    """`plan`, with a Warning Event and a condition that name the ignored variables."""
    names = sorted({variable.name[:64] for variable in env if is_ignored(variable.name)})
    if not names:
        return plan
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    ignored = (
        f"spec.env {', '.join(names[:_MOST_NAMED])}{more}: the Job does not get variables that load"
        " code or begin with AIM_; remove them from spec.env"
    )
    reports = tuple(
        replace(report, conditions=tuple(_with(each, ignored) for each in report.conditions))
        for report in plan.reports
    )
    return with_warning_event(replace(plan, reports=reports), reasons.ENV_IGNORED, ignored)


def _with(condition: ReportedCondition, ignored: str) -> ReportedCondition:
    """Filled with a note about the ignored variables."""
    if condition.type != reasons.FILLED:
        return condition
    return with_note(condition, ignored, _SHORT_MESSAGE)
