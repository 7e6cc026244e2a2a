"""A case: a command on the folder that the fuzzer prepared, as data: it can be made smaller, printed and run again."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

RUN, STOPPED, NEW = "runs/train/a", "runs/train/stopped", "runs/new"
TRAINING = {
    "threads": "1",
    "tokens": "2000",
    "batch_size": "2",
    "model.n_heads": "2",
    "model.d_model": "16",
    "model.d_vocab": "64",
    "data.repeat_tokens": "60000",
    "snapshots.linear": "1",
    "snapshots.log": "0",
    "evaluation.n_examples": "8",
    "evaluation.n_sequences": "2",
}
MINIMAL = {"threads": "1", "steps": "4", "measure_every": "2", "seeds": "[0,1]"}
TO_NEW = {"hydra.run.dir": NEW}
FROM_FILES = {"data": "files", "data.paths": "[corpus]", "model.d_vocab": "300"}
FEW = {"threads": "1", "n_examples": "8"}


@dataclass(frozen=True)
class Damage:
    file: str
    rule: str
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """A command on the folder that the fuzzer prepared.

    usual: settings that keep it small; odd: those that are tried, in their place. refused: whether it must be.
    """

    kind: str
    command: str
    sources: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    usual: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    damage: tuple[Damage, ...] = ()
    refused: bool = False

    @property
    def arguments(self) -> list[str]:
        settings = [f"{key}={value}" for key, value in {**self.usual, **self.odd}.items()]
        return [self.command, *self.sources, *self.flags, *settings, *self.words]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Case:
        known = json.loads(text)
        several = {name: tuple(known[name]) for name in ("sources", "flags", "words")}
        return Case(**{**known, **several, "damage": tuple(Damage(**each) for each in known["damage"])})


def changed(base: Case, kind: str, **changes: Any) -> Case:
    return Case(**{**{name: getattr(base, name) for name in Case.__dataclass_fields__}, "kind": kind, **changes})


# ------------------------------------------------------------------------------------------------ what works

SMOKE = ("-e", "smoke")
COMMANDS: dict[str, Case] = {
    "train": Case("", "train", flags=SMOKE, usual=TRAINING | TO_NEW),
    "score": Case("", "score", (RUN,), SMOKE, FEW | {"snapshot": "last", "n_sequences": "2"}),
    "ablate": Case("", "ablate", (RUN,), SMOKE, FEW | {"snapshot": "last"}),
    "generalize": Case("", "generalize", (RUN,), SMOKE, {"threads": "1", "n_draws": "1"}),
    "circuits": Case("", "circuits", (RUN,), SMOKE, FEW | {"n_controls": "1"}),
    "pertoken_pca": Case("", "pertoken-pca", (RUN,), SMOKE, FEW),
    "compare": Case("", "compare", (RUN,), SMOKE),
    "report": Case("", "report", (RUN,), (), {"explorer_runs": "0"}),
    "classify": Case("", "classify", flags=SMOKE, usual=MINIMAL | TO_NEW),
    "recall": Case("", "recall", flags=SMOKE, usual=MINIMAL | TO_NEW | {"characters": "5000"}),
    "smear": Case("", "smear", flags=SMOKE, usual=TRAINING | TO_NEW | {"smeared_tokens": "1000"}),
    "reproduce": Case(
        "", "reproduce", flags=(*SMOKE, "--print-config"), usual={"hydra.run.dir": NEW}
    ),  # it takes minutes
}
RESUME = Case("", "train", flags=("--resume", STOPPED))
EXPORT = Case("", "export", (RUN,), ("--to", "huggingface"))
TRAIN_FILES = Case("", "train", flags=SMOKE, usual=TRAINING | TO_NEW | FROM_FILES)
# made once, in this order
PREPARED = [
    Case("", "train", flags=SMOKE, usual=TRAINING | {"hydra.run.dir": RUN}),
    *(COMMANDS[name] for name in ("score", "compare", "report")),
    Case(
        "",
        "train",
        flags=SMOKE,
        usual=TRAINING | {"hydra.run.dir": STOPPED, "tokens": "20000", "snapshots.linear": "9"},
    ),
]
WORDS = "the of a head token layer loss attends to what came before and copies it then"


def write_corpus(folder: Path) -> None:
    """Text of every kind that can be read."""
    chance = Random(0)
    folder.mkdir()
    texts = [" ".join(chance.choices(WORDS.split(), k=200)) + "\n" for _ in range(60)]
    for i, text in enumerate(texts[:50]):
        (folder / f"{i:02}.txt").write_text(text)
    (folder / "many.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[50:55]))
    (folder / "packed.txt.gz").write_bytes(gzip.compress("".join(texts[55:]).encode(), mtime=0))
