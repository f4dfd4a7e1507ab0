"""Tensors and text in one .safetensors file: written whole or not at all, read without unpickling anything."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch

from septum.data.files import atomic_path
from septum.errors import ModelError

PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how PyTorch's own files begin


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors with metadata; OutputError if the disk is full or the folder read-only."""
    with atomic_path(path) as beside:
        data = safetensors.torch.save(tensors, metadata)
        beside.write_bytes(data)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors and metadata; ModelError for anything that is not a whole safetensors file."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        with safetensors.safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}, tensors.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error}); check the file and its rights") from None
    except safetensors.SafetensorError as error:
        if start in PICKLES:
            raise ModelError(
                f"{path} is a pickled PyTorch file, which can run any code when opened; "
                "Septum only reads .safetensors models"
            ) from None
        raise ModelError(f"{path} is no safetensors file or is cut short ({error}); get or train it again") from None
