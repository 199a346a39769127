"""Is today's picture still the right one: metrics, the objective, verdicts, and a report to look at.

`metrics` and `colors` compare pixels; `objective` asks the network; `manifest` says what to run and what
to expect; `runner` runs it; `verdicts` judges; `report` and `junit` tell. `legacy-style compare` is
the front.
"""
