"""Compose engine based on network namespaces: runs docker-compose.yml without Docker, images or a daemon.

`python -m netns_engine.supervisor` runs a lab; `runtime.netns_lab` starts it and communicates with it through
`netns_engine.control`.  README.md describes the architecture.
"""
