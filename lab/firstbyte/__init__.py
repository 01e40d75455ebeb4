"""Command line of the lab: `cli` defines the commands and their options, `dispatch` runs them."""
