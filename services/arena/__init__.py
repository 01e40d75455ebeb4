"""Game arena that sends snapshots at a fixed rate over UDP or TCP; over TCP, it can skip outdated snapshots.

`messages` is the sans-IO core; `server` sends and receives the messages.  There is no game: a snapshot consists of its
number, the time at which it was sent, and padding.
"""

from arena.messages import ArenaError, Join, Mode, Snapshot

__all__ = ["ArenaError", "Join", "Mode", "Snapshot"]
