"""The CA's issuing certificates and keys on disk; rotations add, replace and delete these files while the CA runs."""

from collections.abc import Callable
from pathlib import Path

from authority import Issuer, load_issuer
from authority.keys import ACTIVE, active_number, issuing_numbers, retired_file


class IssuingFiles:
    """All issuing CAs in a folder, one of which signs new leaves."""

    def __init__(self, folder: Path, passphrase_file: Path) -> None:
        """Load all issuing CAs.

        Raises:
            KeyFileError: a file is missing or malformed, or a key does not match its certificate.
        """
        self._folder, self._passphrase_file = folder, passphrase_file
        self._seen: object = None
        self.issuers: dict[int, Issuer] = {}
        self.active = 1
        self.reload()

    @property
    def signing(self) -> Issuer:
        """The issuing CA that signs new leaves."""
        return self.issuers[self.active]

    def reload(self) -> bool:
        """Reload the files if they changed; return whether they changed.

        Raises:
            KeyFileError: a file is malformed, or a key does not match its certificate; the loaded CAs stay in use.
        """
        seen = self._stamp()
        if seen == self._seen:
            return False
        active = active_number(self._folder)
        numbers = sorted({*issuing_numbers(self._folder), active})
        issuers = {number: load_issuer(self._folder, self._passphrase_file, number) for number in numbers}
        self._seen, self.issuers, self.active = seen, issuers, active
        return True

    def remove_retired(self, needed: Callable[[Issuer], bool]) -> None:
        """Delete the files of each retired issuing CA that is no longer *needed*; `reload` then stops its publication.

        The certificate is deleted first, then the key, and last the file that marks the CA as retired.  The remaining
        files can therefore always be loaded, and an interrupted removal is repeated.

        Raises:
            StoreError: *needed* cannot read the store.
        """
        for mark in self._folder.glob("issuing*.retired"):
            number = next((each for each in self.issuers if retired_file(self._folder, each) == mark), None)
            if number == self.active or (number is not None and needed(self.issuers[number])):
                continue
            for file in (mark.with_suffix(".pem"), mark.with_suffix(".key.pem"), mark):
                file.unlink(missing_ok=True)

    def _stamp(self) -> object:
        """Return name, modification time and inode number of each file; any change to the files changes this value."""
        files = [*self._folder.glob("issuing*.pem"), *self._folder.glob(ACTIVE)]
        states = ((each.name, each.stat()) for each in sorted(files) if each.exists())
        return [(name, state.st_mtime_ns, state.st_ino) for name, state in states]
