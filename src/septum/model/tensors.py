"""Tensors and text in one .safetensors file: it appears whole or not at all, and nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch

from septum.data.files import atomic_path
from septum.errors import ModelError

PICKLE_STARTS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # of PyTorch's own files
DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write named tensors of floating point with metadata, one by one, through a buffer as large as the largest.

    Raises
    ------
    OutputError
        If the disk is full or the folder read-only.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    buffer = torch.empty(max((tensor.nbytes for tensor in tensors.values()), default=0), dtype=torch.uint8)
    with atomic_path(path) as beside, beside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            part = buffer[: tensor.nbytes]
            part.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
            file.write(part.numpy().data)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors and metadata; ModelError for anything that is not a complete safetensors file.

    Each tensor has a mapping of the file of its own, so that its memory is freed with it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        with safetensors.safe_open(path, framework="pt") as tensors:
            names, metadata = list(tensors.keys()), tensors.metadata() or {}
        return {name: _mapped(path, name) for name in names}, metadata
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from None
    except safetensors.SafetensorError as error:
        if start in PICKLE_STARTS:
            raise ModelError(
                f"{path} is a pickled PyTorch file, which can run any code when opened; "
                "Septum reads only .safetensors models"
            ) from None
        raise ModelError(
            f"{path} is not a safetensors file or is cut short ({error}); download it again or train again"
        ) from None


def _mapped(path: Path, name: str) -> torch.Tensor:
    with safetensors.safe_open(path, framework="pt") as tensors:
        tensor: torch.Tensor = tensors.get_tensor(name)
        return tensor
