"""Files of every kind, damaged by every rule that fits them, before the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import damage
from cases import COMMANDS, EXPORT, RESUME, RUN, STOPPED, TRAIN_FILES, Case, Damage, changed

READERS = ("score", "ablate", "generalize", "circuits", "pertoken_pca", "compare", "report")
OF_TABLES = ("pertoken_pca", "compare", "report", "circuits")


@dataclass(frozen=True)
class FileKind:
    """Files of a kind, by pattern; how they are damaged; the commands that read them."""

    patterns: tuple[str, ...]
    rules: tuple[damage.Rule, ...]
    readers: tuple[Case, ...]


def commands(*names: str) -> tuple[Case, ...]:
    return tuple(COMMANDS[name] for name in names)


FILES = {
    "config.yaml": FileKind((f"{RUN}/.hydra/config.yaml",), tuple(damage.YAML), commands(*READERS)),
    "config.yaml, resume": FileKind((f"{STOPPED}/.hydra/config.yaml",), tuple(damage.YAML), (RESUME,)),
    "meta.json": FileKind((f"{RUN}/meta.json", f"{RUN}/*/meta.json"), tuple(damage.JSON), commands(*READERS)),
    "meta.json, resume": FileKind((f"{STOPPED}/meta.json",), tuple(damage.JSON), (RESUME,)),
    "snapshot": FileKind(
        (f"{RUN}/snapshots/*",),
        tuple(damage.SNAPSHOT),
        (*commands("score", "ablate", "circuits", "pertoken_pca"), EXPORT),
    ),
    "snapshot, resume": FileKind((f"{STOPPED}/snapshots/*",), tuple(damage.SNAPSHOT), (RESUME,)),
    "resume state": FileKind((f"{STOPPED}/resume/*",), tuple(damage.WEIGHTS), (RESUME,)),
    "table of a run": FileKind((f"{RUN}/tables/*.csv",), tuple(damage.TABLE), commands("score", *OF_TABLES)),
    "table, resume": FileKind((f"{STOPPED}/tables/*.csv",), tuple(damage.TABLE), (RESUME,)),
    "table of results": FileKind((f"{RUN}/*/tables/*.csv",), tuple(damage.TABLE), commands(*OF_TABLES)),
    "tokenizer": FileKind((f"{RUN}/tokenizer.json",), tuple(damage.JSON), commands("score", "pertoken_pca", "ablate")),
    "prepared text": FileKind(("cache/*/*.npy",), tuple(damage.ARRAY), commands("train", "score")),
    "its manifest": FileKind(("cache/*/*.json",), tuple(damage.JSON), commands("train", "score")),
    "text": FileKind(("corpus/*.txt",), tuple(damage.CORPUS), (TRAIN_FILES,)),
    "jsonl": FileKind(("corpus/*.jsonl",), tuple(damage.JSONL), (TRAIN_FILES,)),
    "gz": FileKind(("corpus/*.gz",), tuple(damage.CORPUS), (TRAIN_FILES,)),
}


def damaged_file(kind: str, prepared: Path, chance: Random) -> Case:
    """One file of the prepared folder, or two, damaged."""
    known = FILES[kind]
    there = sorted(str(path.relative_to(prepared)) for pattern in known.patterns for path in prepared.glob(pattern))
    many = 2 if chance.random() < 0.15 else 1
    harm = [
        Damage(chance.choice(there), chance.choice(known.rules).__name__, chance.randrange(1000)) for _ in range(many)
    ]
    return changed(chance.choice(known.readers), f"file: {kind}", damage=tuple(harm))
