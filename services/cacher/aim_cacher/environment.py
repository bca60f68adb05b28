"""Variables of a cache that its Jobs do not get: those that load code, and the control plane's own.
Pure.

A ModelCache says what to download. Who may create one may not thereby run code that lies on a
volume in a pod that holds credentials.
"""

import re
from dataclasses import replace

import msgspec

from aimcontroller.plan import Plan, clean, warning
from aimschema import reasons
from aimschema.kinds import EnvVar
from aimschema.messages import ReportedCondition

_IGNORED = re.compile(
    r"""(?x)
    PYTHON.* | LD_.* | PATH | HOME                   # the interpreter, the dynamic linker
    | GCONV_PATH | GLIBC_TUNABLES | LOCPATH          # the C library
    | OPENSSL_(CONF|CONF_INCLUDE|ENGINES|MODULES)    # engines and providers
    | AWS_(CONFIG_FILE|SHARED_CREDENTIALS_FILE|DATA_PATH) | BOTO_CONFIG   # programs that give keys
    | BASH_ENV | ENV                                 # shells
    | AIM_(?!S3_).*
    """,
    re.DOTALL,
)
_MARK = "; ignored: "
_LONGEST_MESSAGE = 500
_MOST_NAMED = 5


def is_ignored(name: str) -> bool:
    return _IGNORED.fullmatch(name) is not None


def warn_of_ignored(env: list[EnvVar], found: Plan) -> Plan:
    """`found`, with a Warning Event and a condition that name the variables which are left out."""
    names = sorted({variable.name[:64] for variable in env if is_ignored(variable.name)})
    if not names:
        return found
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    words = (
        f"spec.env {', '.join(names[:_MOST_NAMED])}{more}: the Job does not get variables that load"
        " code or begin with AIM_; remove them from spec.env"
    )
    reports = tuple(
        replace(each, conditions=tuple(_with(said, words) for said in each.conditions))
        for each in found.reports
    )
    return warning(replace(found, reports=reports), reasons.ENV_IGNORED, words)


def _with(said: ReportedCondition, words: str) -> ReportedCondition:
    """Filled with these words, once: a planner may repeat its last message."""
    if said.type != reasons.FILLED:
        return said
    message = said.message.partition(_MARK)[0][:_LONGEST_MESSAGE]
    return msgspec.structs.replace(said, message=clean(f"{message}{_MARK}{words}"))
