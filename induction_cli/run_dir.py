"""Where RunDir stood in version 0.1.0; notebooks that import it from here go on."""

from induction_cli.runs.run_dir import RunDir, RunError, Snapshot

__all__ = ["RunDir", "RunError", "Snapshot"]
