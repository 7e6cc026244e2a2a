"""What is algebra holds for any input that hypothesis can think of, the same ones in every run."""

import pytest
import torch
from conftest import D_VOCAB, KINDS, N_HEADS, N_POS, small_config
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from induction_cli.config import ABLATIONS, ConfigError
from induction_cli.launch import quote
from induction_cli.models import ablation, fast_ablation
from induction_cli.models.pretrained import expand_series
from induction_cli.models.protocol import Patch, Question
from induction_cli.models.transformer import Transformer

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=200)
SIGNS = st.text(st.sampled_from(list("ab \\'\"${},[]()=:#~*\t")))
TEXT = SIGNS | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}@"))
REVISIONS = st.lists(st.text("abc019-_.", min_size=1), min_size=1, unique=True)


@EXAMPLES
@given(TEXT)
def test_quoting_comes_back(text):
    """Through Hydra's grammar and OmegaConf's interpolation."""
    value = OverridesParser.create().parse_override(f"key={quote(text)}").value()
    assert OmegaConf.create({"key": value}).key == text


@EXAMPLES
@given(st.lists(TEXT, max_size=3))
def test_quoting_comes_back_in_a_list(texts):
    value = OverridesParser.create().parse_override(f"key=[{','.join(map(quote, texts))}]").value()
    assert list(OmegaConf.create({"key": value}).key) == texts


@EXAMPLES
@given(NAME, NAME, REVISIONS, NAME)
def test_a_series_is_its_revisions_in_order(name, before, revisions, after):
    written = f"hf:{name}@{before}{{{', '.join(revisions)}}}{after}"
    assert expand_series(written) == [f"hf:{name}@{before}{one}{after}" for one in revisions]


@EXAMPLES
@given(NAME, REVISIONS)
def test_a_revision_twice_is_no_series(name, revisions):
    with pytest.raises(ConfigError, match="each revision once"):
        expand_series(f"hf:{name}@{{{','.join([*revisions, revisions[0]])}}}")


@EXAMPLES
@given(TEXT.filter(lambda text: not (text.startswith("hf:") and set("{}") & set(text))))
def test_whatever_is_no_series_stands_for_itself(text):
    assert expand_series(text) == [text]


HEADS = st.tuples(st.integers(0, 1), st.integers(0, N_HEADS - 1))
SETS = st.lists(st.lists(HEADS, max_size=4), min_size=1, max_size=4)
MODELS = st.builds(lambda kind, seed: made(kind, seed), st.sampled_from(sorted(KINDS)), st.integers(0, 9))
WEIGHTY = settings(EXAMPLES, max_examples=60)


def made(kind: str, seed: int) -> Transformer:
    """Every parameter away from its initial value, so every head writes."""
    model, generator = Transformer(small_config(**KINDS[kind]), seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def drawn(n_pos: int, seed: int) -> torch.Tensor:
    return torch.randint(D_VOCAB, (2, n_pos), generator=torch.Generator().manual_seed(seed))


@WEIGHTY
@given(MODELS, st.integers(1, N_POS), st.integers(0, 9))
def test_an_empty_patch_changes_nothing(model, n_pos, seed):
    tokens = drawn(n_pos, seed)
    plain = model(tokens)
    assert torch.allclose(model(tokens, patch=Patch()), plain, atol=1e-5)
    everything = Patch(head_scale=torch.ones(2, N_HEADS))
    assert torch.allclose(model(tokens, patch=everything), plain, atol=1e-5)


@WEIGHTY
@given(MODELS, st.lists(st.lists(HEADS, max_size=4), min_size=1, max_size=4), st.sampled_from(ABLATIONS), st.data())
def test_fast_ablation_is_the_plain_one(model, sets, kind, data):
    tokens = drawn(N_POS + 1, data.draw(st.integers(0, 9)))
    column = st.integers(0, N_POS - 1)
    chosen = data.draw(st.none() | st.lists(st.tuples(column, column), min_size=1, max_size=4))
    positions = None if chosen is None else torch.tensor(chosen).T
    mean_z = torch.randn(2, N_HEADS, model.d_head, generator=torch.Generator().manual_seed(4))
    question = Question(tokens, sets, kind, positions, mean_z)
    plain, fast = ablation.plain(model, question), fast_ablation.fast(model, question)
    assert torch.allclose(plain.clean, fast.clean, atol=1e-5, rtol=1e-5)
    assert torch.allclose(plain.ablated, fast.ablated, atol=1e-5, rtol=1e-5)
