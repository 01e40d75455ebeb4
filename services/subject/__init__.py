"""Observer of a subject: a program of the user's own that has joined the lab, next to which it runs as a lab host."""
