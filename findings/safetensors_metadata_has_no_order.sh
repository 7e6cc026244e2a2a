#!/usr/bin/env bash
# safetensors 0.8.0 writes several metadata entries in an order that changes from process to process: the same tensors
# with the same notes are files of different bytes.
#
# Guess: a format made for reproducible, hashable weights gives the same bytes for the same input.
# Seen (safetensors 0.8.0): three metadata entries, one tensor, twelve processes: more than one file; with one entry, one.
# Matters: checksums of files, content-addressed stores and 'resumes to the same bytes' break. Put everything into one
#   entry (JSON), or hash the tensors instead of the file.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.2.6
cat >"$work/save.py" <<'PY'
import hashlib, sys
import numpy as np
from safetensors.numpy import save

notes = {f"note_{i}": str(i) for i in range(int(sys.argv[1]))}
print(hashlib.sha256(save({"weight": np.zeros(3, np.float32)}, notes)).hexdigest())
PY
for entries in 1 3; do
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do "$work/venv/bin/python" "$work/save.py" $entries; done |
        sort -u >"$work/hashes_$entries"
    echo "$entries metadata entries, 12 processes: $(wc -l <"$work/hashes_$entries") different files"
done
test "$(wc -l <"$work/hashes_1")" -eq 1
test "$(wc -l <"$work/hashes_3")" -gt 1 || exit 1
