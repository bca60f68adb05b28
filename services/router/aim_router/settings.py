"""Settings of the router beyond those every service has."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from aim_router.desired import RouteOptions
from aimcontroller.settings import ServiceSettings


def parse_hosts(value: object) -> object:
    """JSON of host name globs by a glob of the namespace; None for an empty text. Raises
    ValueError, naming what is wrong."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error}); give an object of lists") from error
    if not isinstance(parsed, dict) or not all(map(_is_texts, parsed.values())):
        raise ValueError('must be an object of lists, such as {"team-*": ["*.team.example.org"]}')
    return {place: tuple(globs) for place, globs in parsed.items()}


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


class RouterSettings(ServiceSettings):
    route_any_path: bool = False  # whether a path need not begin with the service's namespace
    # host names that services may ask for, as globs by a glob of their namespace; None: any
    route_hosts: Annotated[
        Mapping[str, tuple[str, ...]] | None, NoDecode, BeforeValidator(parse_hosts)
    ] = None

    @property
    def options(self) -> RouteOptions:
        return RouteOptions(self.route_any_path, self.route_hosts)
