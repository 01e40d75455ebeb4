"""Zones added at run time, stored in the state folder so that they are served again after a restart.

A primary zone is stored as the master file ``ZONE.zone``. A secondary zone is stored as ``ZONE.secondary``, which
contains the name of another secondary zone that has the same primaries.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dnsmessage import LocalError, Name
from hostfiles.atomic import atomic_write
from nameserver.errors import ZoneError
from nameserver.secondary import Primary


class AddedZones:
    """The files of added zones in the state folder."""

    def __init__(self, folder: Path | None) -> None:
        """Store the files in *folder*; if *folder* is None, zones cannot be added."""
        self._folder = folder

    def files(self) -> dict[Name, Path]:
        """Return the master files of added primary zones, keyed by apex."""
        return dict(self._found("zone"))

    def secondaries(self, configured: Mapping[Name, Sequence[Primary]]) -> dict[Name, Sequence[Primary]]:
        """Return the primaries of added secondary zones, keyed by apex; *configured* holds those of configured zones.

        Raises:
            ZoneError: an added zone has the same primaries as a zone that is no longer configured.
        """
        added: dict[Name, Sequence[Primary]] = {}
        for apex, path in self._found("secondary"):
            other = Name.from_text(path.read_text().strip())
            if other not in configured:
                raise ZoneError(f"{path}: expected a configured secondary zone, got {other}")
            added[apex] = configured[other]
        return added

    def keep(self, apex: Name, kind: str, content: str) -> Path:
        """Write *content* to the file of the zone *apex*, and return its path; *kind* is ``zone`` or ``secondary``.

        Raises:
            ZoneError: there is no state folder, the folder already contains a journal or file of this zone, or the file
                cannot be written.
        """
        if self._folder is None:
            raise ZoneError("expected a server with --state, where an added zone is kept")
        stem = str(apex).replace("/", "%2F")
        for each in ("zone", "secondary", "journal"):
            if (old := self._folder / f"{stem}{each}").exists():
                raise ZoneError(f"expected no file {old} of an earlier zone with this name")
        path = self._folder / f"{stem}{kind}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise ZoneError(f"{path} cannot be written: {error.strerror}") from None
        return path

    def _found(self, kind: str) -> Iterator[tuple[Name, Path]]:
        for path in sorted(self._folder.glob(f"*.{kind}")) if self._folder is not None else ():
            try:
                yield Name.from_text(path.name.removesuffix(kind).replace("%2F", "/")), path
            except LocalError:  # the file name is not a domain name, so the server did not write this file
                continue
