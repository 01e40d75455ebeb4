"""The Compose engine for network namespaces: runs docker-compose.yml without Docker, an image or a daemon.

`python -m netns_engine.supervisor` runs a lab.  `runtime.netns_lab` starts it and talks to it through
`netns_engine.control`.  README.md says how the parts work together.
"""
