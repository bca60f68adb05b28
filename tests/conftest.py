"""The model for all tests below, and which tests need real servers."""

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from aimlab.cli.quickstart import MODEL_FOLDER, WEIGHTS, model_folder
from aimlab.real.cluster import FOLDER

collect_ignore = [] if FOLDER in os.environ else ["real"]  # needs the parts of `make test-real`


@pytest.fixture(scope="session", autouse=True)
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The quickstart's model with 1 MiB of weights instead of 90 MB, which every laptop cluster
    puts into its stores and downloads."""
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(model_folder(), folder, ignore=shutil.ignore_patterns(WEIGHTS))
    (folder / WEIGHTS).write_bytes(safetensors(os.urandom(1 << 20)))
    os.environ[MODEL_FOLDER] = str(folder)
    yield
    del os.environ[MODEL_FOLDER]


def safetensors(weights: bytes) -> bytes:
    """A file with one tensor of one byte a parameter: a length of 8 bytes, a header in JSON, the
    data."""
    shape = [len(weights)]
    header = json.dumps({"weights": {"dtype": "U8", "shape": shape, "data_offsets": [0, *shape]}})
    return len(header).to_bytes(8, "little") + header.encode() + weights
