"""Configuration files for a lab whose address prefix differs from the one in the checkout.

The files in the checkout contain addresses in 198.19.0.0/16.  If ``FIRSTBYTE_PREFIX`` names another prefix, `up` writes
copies with that prefix to the folder ``FIRSTBYTE_FILES``, which the compose file mounts instead
(docs/decisions/0006-two-labs.md).
"""

import re
from pathlib import Path

from hostfiles.layout import DEFAULT_PREFIX, PREFIX_VARIABLE
from netns_engine import variables
from runtime.errors import UsageError

FILES_VARIABLE = "FIRSTBYTE_FILES"
#: Folders whose files contain addresses, relative to the compose file.
FOLDERS = ("lab/etc", "dns/zones")


def write_files(project: Path) -> None:
    """Write the copies that the lab in *project* needs; do nothing for the default prefix.

    Raises:
        UsageError: the prefix is not the first half of an IPv4 address, or ``FIRSTBYTE_FILES`` is not set.
    """
    values = variables.read(project)
    prefix = values.get(PREFIX_VARIABLE) or DEFAULT_PREFIX
    if prefix == DEFAULT_PREFIX:
        return
    if not re.fullmatch(r"(\d{1,3})\.(\d{1,3})", prefix) or any(int(octet) > 255 for octet in prefix.split(".")):
        raise UsageError(f"{PREFIX_VARIABLE}: expected two octets such as 10.77, got {prefix!r}")
    if not (folder := values.get(FILES_VARIABLE)):
        raise UsageError(f"{PREFIX_VARIABLE}={prefix} needs {FILES_VARIABLE}, a folder for copies of the configuration")
    into = project / folder
    if into.resolve() == project.resolve():
        raise UsageError(f"{FILES_VARIABLE}: expected another folder than the checkout, got {folder!r}")
    for name in FOLDERS:
        (into / name).mkdir(parents=True, exist_ok=True)
        for source in (project / name).iterdir():
            text = source.read_text(encoding="utf-8").replace(DEFAULT_PREFIX, prefix)
            (into / name / source.name).write_text(text, encoding="utf-8")
