"""The Python API: what the commands of the same names do, with tables for an answer.

Settings are those of `induction COMMAND --print-config`, as keyword arguments; groups are dicts: model={"n_layers": 1}.
Every function raises ConfigError for what was asked wrongly and RunError for what is wrong on disk, in one line each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from induction_cli.evaluation.sources import Moment, Source
from induction_cli.evaluation.sources import open_source as source_named
from induction_cli.launch import compose, quote, recipe_overrides, room_of, run_dir_overrides, schema_of
from induction_cli.models.protocol import Model
from induction_cli.runs.files import beside
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import load_claims
from induction_cli.verdicts import verdicts as verdicts_of
from induction_cli.verdicts.rows import verdict_rows


@dataclass(frozen=True)
class Results:
    """What a command found.

    headline: its one number (score: the best prefix matching; train: the last in-context learning score, nats).
    tables: by name, as they are in the folder's tables/; units and meanings of the columns are in the reference.
    folder: where tables, plots and meta.json lie; None where nobody asked for a folder, and nothing is left on disk.
    """

    headline: float
    tables: Mapping[str, pd.DataFrame] = field(repr=False)
    folder: Path | None = None


@dataclass(frozen=True)
class OpenModel:
    """A model at one moment of its training, and its text.

    model: calls give logits, `activations` what happens inside; source: text and random sequences to measure it on.
    """

    model: Model
    source: Source
    moment: Moment

    @property
    def step(self) -> int:
        return self.moment.step

    def tokens(self, text: str) -> Int[Tensor, "1 pos"]:
        """A start token, then the text's."""
        assert self.source.text is not None, f"{self.source.name} comes without a tokenizer"
        return torch.tensor([[self.source.start_token, *self.source.text.encode(text).ids]])

    def pieces(self, tokens: Int[Tensor, "1 pos"]) -> list[str]:
        """Each token as text, to label an axis with."""
        assert self.source.text is not None, f"{self.source.name} comes without a tokenizer"
        return self.source.text.pieces(tokens[0].tolist())

    def repeats(self, n: int = 1, length: int = 25, repeats: int = 2, seed: int = 0) -> Int[Tensor, "n pos"]:
        """A start token, then `length` random tokens, the same ones again and again: what induction heads show on."""
        return self.source.repeats(n, seed, length, repeats)

    def patterns(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "layer batch head query key"]:
        """Where every head looks: each row sums to 1."""
        with torch.no_grad():
            return torch.stack(list(self.model.activations(tokens, ("pattern",)).pattern))

    def losses(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
        """Loss in nats of every token but the first."""
        return self.model.losses(tokens)


def open_model(name: str | Path, snapshot: str | int = "last", *, device: str = "cpu", **options: Any) -> OpenModel:
    """Any model by its name: a run directory, hf:NAME[@REVISION], a Hugging Face folder, a GGUF file, smollm2.

    snapshot: 'last' or a step. options: allow_pickle, start_token, text_file, as for `induction score`.
    """
    source = source_named(str(name), device=device, **options)
    (moment,) = source.choose(str(snapshot))
    return OpenModel(source.load(moment), source, moment)


def train(out_dir: str | Path, *, recipe: str | None = None, **settings: Any) -> Results:
    """Train one model into a new run directory. The tables: training, in_context_learning, loss_by_index and more."""
    return carry_out("train", Path(out_dir), [], recipe, settings)


def score(
    source: str | Path, out_dir: str | Path | None = None, *, recipe: str | None = None, **settings: Any
) -> Results:
    """Line 1 for a run, a folder of runs or any model: tables head_scores, in_context_learning, phase_change, ..."""
    return carry_out("score", out_dir, [source], recipe, settings)


def ablate(
    source: str | Path, out_dir: str | Path | None = None, *, recipe: str | None = None, **settings: Any
) -> Results:
    """Line 3: every head removed, alone and together; table ablation has what that costs, in nats."""
    return carry_out("ablate", out_dir, [source], recipe, settings)


def circuits(
    source: str | Path, out_dir: str | Path | None = None, *, recipe: str | None = None, **settings: Any
) -> Results:
    """Line 5: OV and QK circuits, composition, paths, and an ideal head in an induction head's place."""
    return carry_out("circuits", out_dir, [source], recipe, settings)


def verdicts(*folders: str | Path) -> pd.DataFrame:
    """A row per claim of experiments/claims.yaml and class of model, decided from tables in runs and folders of runs.

    id, claim, model_class, headline (whether the rule is about that class), n (seeds), estimate, low, high, unit, rule,
    verdict ('supported' | 'not supported' | 'inconclusive' | 'not tested'), missing: what would test it, ...
    """
    claims = load_claims(beside("experiments") / "claims.yaml")
    return verdict_rows(verdicts_of([Path(folder) for folder in folders], claims))


def carry_out(
    command: str,
    out_dir: str | Path | None,
    sources: Sequence[str | Path],
    recipe: str | None,
    settings: Mapping[str, Any],
) -> Results:
    """Settings checked as on the command line; the command's room run; its tables read."""
    asked = [*run_dir_overrides(schema_of(command), sources), *recipe_overrides(command, recipe), *typed(settings)]
    (config,) = compose(command, [asked])
    with ExitStack() as stack:
        folder = Path(out_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="induction-")))
        headline = room_of(command).run(config, folder)
        room = RunDir(folder)
        tables = {path.stem: room.table(path.stem) for path in sorted((folder / "tables").glob("*.csv"))}
    return Results(headline, tables, Path(out_dir) if out_dir else None)


def typed(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keyword arguments as one would type them: {"model": {"n_layers": 1}} -> ["model.n_layers=1"]."""
    found = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += typed(value, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}={one_value(value)}")
    return found


def one_value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(one_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else quote(value)
