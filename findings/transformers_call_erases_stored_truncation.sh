#!/usr/bin/env bash
# transformers 5.23.0: the truncation stored in tokenizer.json is obeyed by the tokenizer's own backend until the tokenizer
# is used once; that call erases it, for everybody who shares the object.
#
# Guess: encoding does not change a tokenizer; what a file stores holds for all calls, or for none.
# Seen (transformers 5.23.0, tokenizers 0.23.3): of 20 words a file with truncation at 5 gives 5 tokens through
#   tokenizers, 5 through backend_tokenizer of the transformers object, 20 through its encode(), and then 20 through the
#   same backend_tokenizer.
# Matters: how long a text is depends on whether somebody else encoded something first; evaluation text read through the
#   backend is cut short in silence, and is whole in a debugging session.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cat >"$work/show.py" <<'PY'
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

made = Tokenizer(models.WordLevel({"?": 0, "a": 1}, unk_token="?"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.enable_truncation(5)
made.save(sys.argv[1])

text = "a " * 20
loaded = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1], unk_token="?")
found = {
    "tokenizers": len(Tokenizer.from_file(sys.argv[1]).encode(text).ids),
    "backend before": len(loaded.backend_tokenizer.encode(text).ids),
    "encode()": len(loaded.encode(text)),
    "backend after": len(loaded.backend_tokenizer.encode(text).ids),
}
print(", ".join(f"{name}: {n} tokens" for name, n in found.items()))
assert list(found.values()) == [5, 5, 20, 20], "this has changed"
PY
"$work/venv/bin/python" "$work/show.py" "$work/tokenizer.json" 2>/dev/null || exit 1
