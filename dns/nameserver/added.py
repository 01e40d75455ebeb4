"""Zones that were added while the server ran, kept in the state folder so that a restart serves them again.

A primary zone is a master file, ``ZONE.zone``. A secondary zone is a file ``ZONE.secondary`` with the name of the
secondary zone whose primaries it shares.
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
        """Use *folder* for the files; if it is None, zones cannot be added."""
        self._folder = folder

    def files(self) -> dict[Name, Path]:
        """Return the master files of added primary zones, by apex."""
        return dict(self._found("zone"))

    def secondaries(self, configured: Mapping[Name, Sequence[Primary]]) -> dict[Name, Sequence[Primary]]:
        """Return the primaries of added secondary zones, by apex; *configured* are the other secondary zones.

        Raises:
            ZoneError: the zone whose primaries an added zone shares is no longer configured.
        """
        added: dict[Name, Sequence[Primary]] = {}
        for apex, path in self._found("secondary"):
            other = Name.from_text(path.read_text().strip())
            if other not in configured:
                raise ZoneError(f"{path}: expected a configured secondary zone, got {other}")
            added[apex] = configured[other]
        return added

    def keep(self, apex: Name, kind: str, content: str) -> Path:
        """Write the file of the zone *apex*; *kind* is ``zone`` or ``secondary``.

        Raises:
            ZoneError: there is no state folder, it has a journal or file of this zone, or the file cannot be written.
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
            atomic_write(path, content.encode())
        except OSError as error:
            raise ZoneError(f"{path} cannot be written: {error.strerror}") from None
        return path

    def _found(self, kind: str) -> Iterator[tuple[Name, Path]]:
        for path in sorted(self._folder.glob(f"*.{kind}")) if self._folder is not None else ():
            try:
                yield Name.from_text(path.name.removesuffix(kind).replace("%2F", "/")), path
            except LocalError:  # a file with another name was put there by hand
                continue
