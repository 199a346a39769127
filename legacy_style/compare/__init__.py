"""Is today's picture still the right one: metrics, the objective, verdicts, and a report to look at.

`metrics` compares pixels; `objective` asks the network; `manifest` says what to run and what to expect, `files` where
it is; `runner` runs `rows`, which `making` paints; `verdicts` judges; `report` tells, with `plots`. `pair` compares two
pictures alone, and `record` makes a manifest from results. `legacy-style compare` is the front.
"""
