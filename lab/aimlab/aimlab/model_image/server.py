"""The OpenAI endpoints of the model image stand-in: /health, /v1/models and /v1/chat/completions
without streaming.

The answer is computed from the cached files, so that it can only be right where the model's own
bytes are there: how many tokens the prompt has by the model's vocabulary, the sha256 of its weights
and how many parameters they hold.
"""

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from aimlab.model_image import facts

WEIGHTS = "model.safetensors"
VOCABULARY = "vocab.txt"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked model. `sums` are the sha256 of its files as they are on disk."""

    model_id: str
    sums: Mapping[str, str]
    vocabulary: Mapping[str, int]
    parameters: int
    loaded_at: int


def load(model_id: str, folder: Path, sums: Mapping[str, str]) -> Loaded:
    """Raises OSError or ValueError where the weights or the vocabulary cannot be read."""
    vocabulary = facts.read_vocabulary(folder / VOCABULARY)
    return Loaded(
        model_id, sums, vocabulary, facts.parameters_of(folder / WEIGHTS), int(time.time())
    )


class BadRequestError(Exception):
    """What the client sent cannot be answered; `param` is the field."""

    def __init__(
        self, message: str, param: str | None, *, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": param,
                "code": code,
            }
        }
        self.status = status


def make_app(loaded: Loaded) -> web.Application:
    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def models(_: web.Request) -> web.Response:
        model = {
            "id": loaded.model_id,
            "object": "model",
            "created": loaded.loaded_at,
            "owned_by": "aimlab",
        }
        return web.json_response({"object": "list", "data": [model]})

    async def chat(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            raise BadRequestError("the body is not JSON", None) from None
        return web.json_response(complete(loaded, body))

    app = web.Application(middlewares=[_errors_as_objects])
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/v1/models", models),
            web.post("/v1/chat/completions", chat),
        ]
    )
    return app


@web.middleware
async def _errors_as_objects(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequestError as error:
        return web.json_response(error.body, status=error.status)
    except web.HTTPException as error:
        error_response = BadRequestError(f"{request.method} {request.path}: {error.reason}", None)
        return web.json_response(error_response.body, status=error.status)


def complete(loaded: Loaded, body: object) -> dict[str, Any]:
    """A `chat.completion` object. Raises BadRequestError."""
    if not isinstance(body, dict):
        raise BadRequestError("the body is not an object", None)
    if body.get("model") != loaded.model_id:
        raise BadRequestError(
            f"The model `{body.get('model')}` does not exist.",
            "model",
            status=404,
            code="model_not_found",
        )
    if body.get("stream"):
        raise BadRequestError("this stand-in does not stream", "stream")
    prompt = _prompt_of(body.get("messages"))
    tokens = facts.tokenize(prompt, loaded.vocabulary)
    text = (
        f"Your prompt has {len(tokens)} tokens. My weights have {loaded.parameters} parameters and"
        f" sha256 {loaded.sums[WEIGHTS]}."
    )
    written = len(facts.tokenize(text, loaded.vocabulary))
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": None,
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": loaded.model_id,
        "choices": [choice],
        "usage": {
            "prompt_tokens": len(tokens),
            "completion_tokens": written,
            "total_tokens": len(tokens) + written,
        },
    }


def _prompt_of(messages: object) -> str:
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages must be a list with at least one message", "messages")
    contents = [
        message.get("content") if isinstance(message, dict) else None for message in messages
    ]
    if not all(isinstance(content, str) for content in contents):
        raise BadRequestError("every message needs a text content", "messages")
    return "\n".join(str(content) for content in contents)
