"""Tensor files: safetensors with notes and a checksum beside the tensors. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from induction_cli.runs.files import Damaged, RunError, readable, write_atomic

REMEDY = "delete it, and run the command that made it again"


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """A safetensors file that carries its own checksum beside the notes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # one entry, because safetensors writes several in random order
    write_atomic(path, save(tensors, {"notes": json.dumps({**notes, "sha256": tensor_hash(tensors)})}))


def read_notes(path: Path, remedy: str = REMEDY) -> dict[str, str]:
    """The notes of a tensor file, without its tensors. Raises FileNotFoundError, RunError."""
    with readable(path), path.open("rb"):  # safetensors says less of a file that it may not open
        pass
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise Damaged(path, error, remedy) from error
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise Damaged(path, "its notes are not text by name", remedy)
    return notes


def whole_note(path: Path, notes: Mapping[str, str], name: str, remedy: str = REMEDY) -> int:
    """A note that counts something, as a step. Raises RunError where it does not."""
    said = notes.get(name)
    if said is None:
        raise Damaged(path, f"its notes do not say its {name}", remedy)
    if not (said.isascii() and said.isdecimal() and len(said) < 20):
        raise Damaged(path, f"its {name} is '{said[:40]}', no whole number", remedy)
    return int(said)


def read_tensors(path: Path, remedy: str = REMEDY) -> dict[str, Tensor]:
    """The tensors of a file whose checksum is right. Raises FileNotFoundError, RunError naming a damaged one."""
    notes = read_notes(path, remedy)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise Damaged(path, error, remedy) from error
    if notes.get("sha256") != tensor_hash(tensors):
        raise Damaged(path, "its checksum does not match", remedy)
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor], remedy: str = REMEDY) -> None:
    """Raise RunError where a tensor holds what is no number."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Damaged(path, f"{name} has values that are no numbers", remedy)


def check_shapes(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], remedy: str = REMEDY) -> None:
    """Raise RunError where the tensors of a file are not called or shaped like those of a model of its config.yaml."""
    for name in [*wanted, *sorted(tensors.keys() - wanted.keys())]:
        found, right = (str(tuple(have[name].shape)) if name in have else "missing" for have in (tensors, wanted))
        if found != right:
            where = "which no model of it has" if right == "missing" else f"where a model of it has {right}"
            raise RunError(f"{path} does not fit config.yaml: {name} is {found}, {where}; {remedy}")
