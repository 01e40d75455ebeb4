"""A capacity planner: what the models of `theory` predict for a user's own numbers.

`inputs` reads the numbers, `rows` applies the models to them, `plan` turns ranges into intervals, `calibration`
measures the costs that depend on the machine, and `settings` writes the result as configuration of other programs.
The modules are imported one by one: the command line needs `inputs` alone, which is fast to import.
"""
