"""One room per command: run(config, out_dir) -> headline number. What all of them keep to:

- `run` checks its settings first, computes, and then writes: a call that fails leaves an earlier one's results alone.
- Results go to out_dir; those of each run of a folder where `results_folders` (runs/results.py) says.
- Results are written within `writing` (same file), so that every results folder ends with a meta.json of its own:
  command, settings as used, what it was computed from, by what code, when, on what, and the headline.
"""
