"""The run directory: what is written where, and how it is read back."""
