"""The service of a host that `firstbyte join` adds to a running lab: a copy of the compose file's `TEMPLATE`."""

import ipaddress
from dataclasses import replace

from netns_engine.compose import Mount, Service
from netns_engine.messages import Join

#: Service of the compose file from which joined hosts are copied; also the name of its volume.
TEMPLATE = "subject"
#: Environment variable of a joined host with its DNS name and port, as NAME:PORT.
VARIABLE = "FIRSTBYTE_SUBJECT"
#: Path on a joined host at which the folder is mounted in which `firstbyte join` was called.
HERE = "/srv/here"


def service(template: Service, join: Join) -> Service:
    """Return a copy of *template* that starts the host requested by *join*, with its own volume."""
    environment = {**dict(template.environment), **dict(join.environment)}
    return replace(
        template,
        name=join.host,
        argv=(*template.argv[: template.entrypoint], *join.arguments),
        environment=tuple(environment.items()),
        mounts=(*mounts(template, join.host), Mount(join.folder, HERE, read_only=True)),
        address=ipaddress.IPv4Address(join.address),
        depends_on=(),
        profiles=(),
    )


def mounts(template: Service, host: str) -> tuple[Mount, ...]:
    """Return the mounts of the joined *host*."""
    return tuple(replace(m, source=volume(host)) if m.source == TEMPLATE else m for m in template.mounts)


def volume(host: str) -> str:
    """Return the volume name for *host*, a host that has joined the lab."""
    return f"{TEMPLATE}-{host}"


def subject(joined: Service) -> str:
    """Return the DNS name and port of a joined host, as NAME:PORT; "" for a service of the compose file."""
    return dict(joined.environment).get(VARIABLE, "")
