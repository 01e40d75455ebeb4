"""Entry point of ``python -m monitor HOST:PORT``; see `monitor.command`."""

import sys

from monitor.command import main

sys.exit(main())
