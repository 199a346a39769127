"""Is today's picture still the right one: metrics, the objective, verdicts, and a report to look at.

`metrics` compares pixels, `objective` asks the network too; `manifest` says what to run and what to expect; `runner`
runs `rows`, whose pictures and records `making` makes; `verdicts` judges; `report` shows it all, with `plots`.
`legacy-style compare` is the command.
"""
