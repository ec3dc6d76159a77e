"""Random and forced cases in numbers that a test run has no time for: `python -m tests.campaigns --help`.

A campaign is a module beside this one: `CASES`, how many cases a full run has, `WORST`, what their measured number is
or None, and `run(cases, seed)`, which yields a `Case` for each. The same seed tries the same cases.
"""

CAMPAIGNS = ("convolutions", "values", "files", "kills")
