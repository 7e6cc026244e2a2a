"""Text -> documents -> a split -> tokens on disk -> windows. Also the synthetic sequences of the measures.

A corpus is read as a stream of documents, so memory stays flat however large it is: one pass finds its hash, its counts
and its near-duplicates, one trains the tokenizer, one writes the tokens. All three are cached.
"""

from induction_cli.data.corpus import START, Corpus, open_corpus, train_tokenizer
from induction_cli.data.documents import Documents, open_documents
from induction_cli.data.split import SPLITS, split_of
from induction_cli.data.windows import CHAIN, Batches, held_out_windows

__all__ = [
    "CHAIN",
    "SPLITS",
    "START",
    "Batches",
    "Corpus",
    "Documents",
    "held_out_windows",
    "open_corpus",
    "open_documents",
    "split_of",
    "train_tokenizer",
]
