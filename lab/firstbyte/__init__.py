"""The command line of the lab; `cli` has every verb, `dispatch` what each one does."""
