"""The model image stand-in: what it lists, what it rejects, what it answers."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aimlab.model_image.discovery import Model, dry_run
from aimlab.model_image.facts import parameters_of, tokenize
from aimlab.model_image.integrity import IntegrityError, check
from aimlab.model_image.server import load, make_app

MODEL = Model("org/tiny", "s3://models/org/tiny", 0.5)
VOCABULARY = {
    token: number
    for number, token in enumerate(
        ["[UNK]", "hello", "world", "play", "##ing", "##er", "!", ",", "cafe"]
    )
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cached model with a manifest: five parameters and a small vocabulary."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2]},
            "b": {"dtype": "F32", "shape": []},
        }
    ).encode()
    folder = tmp_path / "org" / "tiny"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(20)
    )
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    (folder / "sub" / "config.json").write_text("{}")
    entries = [
        {"path": path, "size_bytes": 1, "sha256": digest, "tag": ""}
        for path, digest in sums_of(folder).items()
    ]
    (folder / ".aim-manifest.json").write_text(
        json.dumps({"uri": MODEL.source, "revision": "1", "files": entries})
    )
    return folder


def sums_of(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in files}


@pytest.mark.parametrize(
    ("env", "metadata"),
    [
        pytest.param(
            {},
            {
                "engine": "lab",
                "gpu": "MI300X",
                "precision": "fp32",
                "gpu_count": 1,
                "metric": "latency",
            },
            id="nothing-asked",
        ),
        pytest.param(
            {
                "AIM_METRIC": "throughput",
                "AIM_PRECISION": "fp8",
                "AIM_GPU_MODEL": "MI325X",
                "AIM_GPU_COUNT": "4",
                "AIM_TENSOR_PARALLELISM": "2",
            },
            {
                "engine": "lab",
                "gpu": "MI325X",
                "precision": "fp8",
                "gpu_count": 4,
                "metric": "throughput",
            },
            id="everything-asked",
        ),
    ],
)
def test_a_dry_run_lists_the_profile_after_log_noise(
    env: dict[str, str], metadata: dict[str, Any]
) -> None:
    output = dry_run(MODEL, env)
    noise, listed = output.split("\n[\n", 1)
    assert noise.startswith("INFO ")
    [profile] = json.loads("[" + listed)
    assert profile["profile"]["metadata"] == metadata
    assert profile["models"] == [
        {"name": "org/tiny", "source": "s3://models/org/tiny", "size_gb": 0.5}
    ]


def test_a_whole_model_is_whole(folder: Path) -> None:
    assert check(folder, sums_of(folder)) == sums_of(folder)
    assert check(folder, None) == sums_of(folder)


def change(folder: Path, name: str, content: str | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("vocab.txt", "other", "vocab.txt: sha256 is", id="changed"),
        pytest.param(
            "sub/config.json", None, "sub/config.json cannot be read: No such file", id="missing"
        ),
        pytest.param(
            ".aim-manifest.json",
            None,
            "manifest.json is not there: the model was never downloaded completely",
            id="no-manifest",
        ),
        pytest.param(
            ".aim-manifest.json", "{}", "manifest.json is not a manifest", id="torn-manifest"
        ),
    ],
)
def test_an_incomplete_model_is_rejected_by_file(
    folder: Path, name: str, content: str | None, message: str
) -> None:
    change(folder, name, content)
    with pytest.raises(IntegrityError, match=message):
        check(folder, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            {"vocab.txt": "0" * 64},
            r"vocab.txt: the manifest has sha256 \w+, the source has 0000",
            id="another-sum",
        ),
        pytest.param({"more.bin": "0" * 64}, "more.bin cannot be read", id="a-file-more"),
        pytest.param(
            {"sub/config.json": None},
            "sub/config.json: the source has no such file",
            id="a-file-less",
        ),
    ],
)
def test_the_manifest_is_not_believed_against_the_source(
    folder: Path, source: dict[str, str | None], message: str
) -> None:
    sums = {
        name: digest for name, digest in (sums_of(folder) | source).items() if digest is not None
    }
    with pytest.raises(IntegrityError, match=message):
        check(folder, sums)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("Hello, world!", ["hello", ",", "world", "!"], id="punctuation"),
        pytest.param("playing player", ["play", "##ing", "play", "##er"], id="pieces"),
        pytest.param("Café", ["cafe"], id="accents"),
        pytest.param("xyz hello", ["[UNK]", "hello"], id="unknown"),
        pytest.param("", [], id="empty"),
    ],
)
def test_a_prompt_is_cut_into_the_models_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text, VOCABULARY) == tokens


def test_parameters_are_counted_from_the_header(folder: Path) -> None:
    assert parameters_of(folder / "model.safetensors") == 5


async def test_the_server_answers_from_the_files(folder: Path) -> None:
    sums = sums_of(folder)
    async with TestClient(TestServer(make_app(load("org/tiny", folder, sums)))) as client:
        assert (await client.get("/health")).status == 200
        listed = await (await client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["org/tiny"]
        body = {"model": "org/tiny", "messages": [{"role": "user", "content": "hello world"}]}
        answer = await (await client.post("/v1/chat/completions", json=body)).json()
        text = answer["choices"][0]["message"]["content"]
        assert (
            text == "Your prompt has 2 tokens. My weights have 5 parameters and sha256"
            f" {sums['model.safetensors']}."
        )
        assert (
            answer["usage"]["total_tokens"]
            == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        )


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        pytest.param({"model": "other", "messages": []}, 404, "model", id="another-model"),
        pytest.param({"model": "org/tiny", "messages": []}, 400, "messages", id="no-messages"),
        pytest.param(
            {"model": "org/tiny", "messages": [{"role": "user"}]}, 400, "messages", id="no-content"
        ),
        pytest.param(
            {"model": "org/tiny", "stream": True, "messages": []}, 400, "stream", id="stream"
        ),
        pytest.param([], 400, None, id="a-list"),
    ],
)
async def test_what_cannot_be_answered_is_an_openai_error(
    folder: Path, body: object, status: int, param: str | None
) -> None:
    async with TestClient(
        TestServer(make_app(load("org/tiny", folder, sums_of(folder))))
    ) as client:
        answer = await client.post("/v1/chat/completions", json=body)
        assert (answer.status, (await answer.json())["error"]["param"]) == (status, param)
        unknown = await client.get("/v1/nothing")
        assert (unknown.status, "message" in (await unknown.json())["error"]) == (404, True)


def test_a_broken_cache_exits_with_1_and_a_termination_message(
    folder: Path, tmp_path: Path
) -> None:
    change(folder, "vocab.txt", "other")
    termination_log = tmp_path / "words"
    env = {"AIM_CACHE_PATH": str(tmp_path), "AIM_TERMINATION_LOG": str(termination_log)}
    argv = [
        sys.executable,
        "-m",
        "aimlab.model_image",
        "--source",
        MODEL.source,
        "--name",
        MODEL.name,
    ]
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 1
    assert "vocab.txt: sha256 is" in ended.stderr
    assert termination_log.read_text() == ended.stderr.strip()
