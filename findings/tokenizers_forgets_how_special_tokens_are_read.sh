#!/usr/bin/env bash
# tokenizers 0.23.3: `encode_special_tokens` decides whether a special token written inside a text is that token or plain
# characters, and it is not saved with the tokenizer.
#
# Guess: tokenizer.json holds all that decides how text is encoded; it holds truncation and padding, which are smaller.
# Seen (tokenizers 0.23.3): with `encode_special_tokens = True` the text 'a<|end|>b' is read as characters, 9 tokens; the
#   same tokenizer saved and loaded again reads it as 3, the special one in the middle.
# Matters: a corpus made with the safe setting and a model evaluated through the saved file see different tokens wherever a
#   text talks about special tokens, and a document can end in the middle.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3
cat >"$work/show.py" <<'PY'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers

letters = {letter: i for i, letter in enumerate("<|end>ab")}
made = Tokenizer(models.BPE(letters, []))
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.add_special_tokens(["<|end|>"])
made.encode_special_tokens = True
made.save(sys.argv[1])

text = "a<|end|>b"
before, after = (len(each.encode(text).ids) for each in (made, Tokenizer.from_file(sys.argv[1])))
print(f"{text!r}: {before} tokens before it was saved, {after} after it was loaded again")
assert (before, after) == (9, 3), "this has changed"
PY
"$work/venv/bin/python" "$work/show.py" "$work/tokenizer.json" || exit 1
