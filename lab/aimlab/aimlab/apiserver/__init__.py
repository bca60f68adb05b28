"""An API server double: enough of kube-apiserver for kubectl and for services, in memory, on plain
HTTP.

Held to recorded answers of a real kube-apiserver. Known to be simpler: who sends no credentials is
the administrator, who may write RBAC objects may grant anything, no admission plugins, no protobuf
answers, built-in kinds are not checked against their full schemas, CEL rules are not type-checked.
`ApiServer` starts it.
"""

from aimlab.apiserver.server import ApiServer

__all__ = ["ApiServer"]
