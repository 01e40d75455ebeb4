"""The journals of all zones of a primary server: they restore zones at start and store every change.

At start the zone in the journal is served, unless the master file has a newer serial number: then the file was edited
by hand, and the difference is added to the journal. A file edited without a newer serial number is ignored with a
warning.
"""

from dataclasses import replace
from pathlib import Path

from dnsmessage import Name
from nameserver.changes import Change, History, is_newer, next_serial, with_serial
from nameserver.journal import Journal, JournalError, digest
from nameserver.zone import Zone
from telemetry import log

logger = log.get("nameserver")


class Store:
    """Journal and history of each zone."""

    def __init__(self, folder: Path | None) -> None:
        """Store journals in *folder*; if *folder* is None, changes are lost when the process ends."""
        self._folder = folder
        self._journals: dict[Name, Journal] = {}
        #: Digest of each zone as last read from its master file, keyed by apex. A zone has no entry while the served
        #: copy is identical to the file.
        self._files: dict[Name, bytes] = {}
        self.histories: dict[Name, History] = {}

    def restore(self, file: Zone) -> Zone:
        """Return the zone to serve at start; *file* is the zone in the master file.

        Raises:
            JournalError: the journal is unusable; serving the master file instead could lose changes.
        """
        apex, history = file.apex, History()
        self.histories[apex] = history
        if self._folder is None:
            return file
        journal = self._journals[apex] = Journal(self._folder, apex)
        stored = journal.open()
        if stored is None:
            return file
        self._files[apex] = digest(file)
        if stored.cut:
            logger.warning("journal_cut", zone=str(apex), bytes=stored.cut, serial=stored.zone.serial)
        for change in stored.changes:
            history.add(change)
        logger.info("journal_read", zone=str(apex), changes=len(stored.changes), serial=stored.zone.serial)
        fields = {"zone": str(apex), "file": file.serial, "journal": stored.zone.serial}
        if is_newer(file.serial, stored.zone.serial):
            logger.info("zone_file_newer", **fields)
            self.record(stored.zone, stored.zone.diff(file), file)
            return file
        if self._files[apex] != stored.file:
            wanted = f"a serial newer than {stored.zone.serial} in the file, or POST /admin/zones/{apex}/reload"
            logger.warning("zone_file_ignored", **fields, wanted=wanted)
        return stored.zone

    def record(self, old: Zone, change: Change, file: Zone | None = None) -> None:
        """Store a change before it is served; *file* is the zone in the master file if the change is a reload.

        Raises:
            JournalError: the change cannot be stored, so it must not be served.
        """
        apex = change.apex
        known = self._files.get(apex) or digest(old)
        now = known if file is None else digest(file)
        journal = self._journals.get(apex)
        if journal is not None:
            journal.append(old, change, known, now)
        self._files[apex] = now
        self.histories.setdefault(apex, History()).add(change)

    def is_new(self, file: Zone, served: Zone) -> bool:
        """Return whether the zone in the master file has changed since the file was last read."""
        return digest(file) != (self._files.get(file.apex) or digest(served))

    def tidy(self, zone: Zone) -> None:
        """Replace the journal of *zone* if it has outgrown the zone; if that fails, log it and keep the old journal."""
        journal = self._journals.get(zone.apex)
        if journal is None or not journal.outgrown:
            return
        try:
            journal.replace(zone, self.histories[zone.apex])
        except JournalError as error:
            logger.error("journal_not_replaced", zone=str(zone.apex), error=str(error))

    def close(self) -> None:
        """Close all journals."""
        for journal in self._journals.values():
            journal.close()


def reloaded(old: Zone, file: Zone) -> Zone:
    """Return the zone to serve after a reload: the records of *file* with a serial number newer than that of *old*.

    Without a newer serial number, secondaries would not transfer the new records. Returns *old* itself if the records
    are equal.
    """
    if is_newer(file.serial, old.serial):
        return file
    change = old.diff(file)
    soa = with_serial(change.new_soa.rdata, next_serial(old.serial))
    if not change.deleted and not change.added and with_serial(change.old_soa.rdata, 0) == with_serial(soa, 0):
        return old
    logger.info("serial_raised", zone=str(old.apex), file=file.serial, served=old.serial)
    return old.apply(replace(change, new_soa=change.new_soa._replace(rdata=soa)))
