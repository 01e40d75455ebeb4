"""The command line of the lab: ``firstbyte up|down|status|logs|exec|link|trace|run|drill|report|pki``."""
