"""Figures from tables: DataFrame in, matplotlib Figure out; no files, no models, no global state.

One style for all: 800 pixels wide at 100 dots per inch; time is 'training tokens (millions)'; the phase change is a
light band labelled above the axes; lines are named at their right end, not in a legend; a head type has one colour
everywhere. Columns are those of the run directory (design.md); `windows` is tables/phase_change.csv or None, of which
only start_tokens and end_tokens are read, and rows without a window (nan) draw nothing. Inputs are never changed.
"""
