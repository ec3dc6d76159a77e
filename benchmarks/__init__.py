"""Measurements of the package against what it replaces, and the tables made from them.

Run from the repository's root: `python -m benchmarks.run construction` measures and writes a result file to
`benchmarks/results/`; `python -m benchmarks.tables` puts the newest results into README.md. No figure there is typed
by hand.
"""
