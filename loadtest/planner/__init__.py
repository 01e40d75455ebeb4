"""A capacity planner: the predictions of the models in `theory` for a user's own numbers.

`inputs` parses the numbers, `rows` applies the models to them, `plan` turns ranges into intervals, `calibration`
measures the costs that depend on the machine, and `settings` renders the result as configuration of other programs.
Import the modules separately: the command line needs only `inputs`, which is fast to import.
"""
