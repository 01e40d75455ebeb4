"""Observer of a subject, which is a program of the user that has joined the lab; both share one network namespace."""
