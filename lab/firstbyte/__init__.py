"""The command line of the lab: ``firstbyte up|down|status|logs|exec|link|trace|drill|pki``."""
