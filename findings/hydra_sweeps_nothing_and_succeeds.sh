#!/usr/bin/env bash
# Hydra 1.3.8: a sweep over glob(*) of a plain value, or over an empty range, launches no job and exits with 0.
#
# Guess: glob is for config groups, so on a value it is an error; and a sweep that runs nothing is no success.
# Seen (hydra-core 1.3.8): '-m seed=glob(*)' and '-m seed=range(0,0)' print 'Launching 0 jobs locally', exit status 0,
#   and leave an empty sweep folder with its multirun.yaml behind.
# Matters: a typo in a sweep over seeds looks like a night's work done.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet hydra-core==1.3.8 omegaconf==2.3.1
cd "$work"
cat >app.py <<'PY'
import hydra
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store("config", {"seed": 0})


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config):
    print("a job ran with seed", config.seed)


main()
PY
for sweep in 'seed=glob(*)' 'seed=range(0,0)'; do
    status=0
    venv/bin/python app.py -m "$sweep" >said 2>&1 || status=$?
    echo "-m $sweep: exit status $status: $(tail -n 1 said)"
    test "$status" -eq 0
    grep -q 'Launching 0 jobs' said
    if grep -q 'a job ran' said; then exit 1; fi
done
