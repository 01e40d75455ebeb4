"""Test service with several workers: answers each connection with the worker's number.

The client sends one line: ``die`` ends the worker, ``hit`` increments a counter.

python -m tests.telemetry.shared_port --workers 2 --listen 127.0.0.1:0 --admin 127.0.0.1:0 [--broken]
"""

import argparse
import asyncio
import os
import signal
import sys

from telemetry import Telemetry, add_arguments, add_workers, endpoint, log, workers
from telemetry.workers import Worker


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", type=endpoint, required=True)
    parser.add_argument("--broken", action="store_true", help="worker 2 ends with a usage error")
    add_workers(parser)
    add_arguments(parser)
    args = parser.parse_args()
    log.configure("shared_port")
    args.listen = workers.reserve(args.listen)

    def work(worker: Worker) -> int:
        if args.broken and worker.number == 2:
            return workers.USAGE
        asyncio.run(_run(args, worker))
        return 0

    return workers.run(args, work)


async def _run(args: argparse.Namespace, worker: Worker) -> None:
    telemetry = Telemetry("shared_port")
    telemetry.faults.declare("silence", "Answer nothing")
    hits = telemetry.metrics.counter("hits_total", "Connections that said hit")
    number = telemetry.metrics.gauge("number", "Number of the worker", across="max")
    number.set(worker.number)
    reloads = 0

    def reload() -> None:
        nonlocal reloads
        reloads += 1
        telemetry.health.set("reloads", ok=True, detail=str(reloads))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = (await reader.readline()).strip()
        if said == b"die":
            os._exit(3)
        if said == b"hit":
            hits.inc()
        writer.write(f"{worker.number} {'again' if worker.again else 'first'}".encode())
        writer.close()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    async with telemetry.serving(args):
        server = await asyncio.start_server(answer, *args.listen, reuse_port=True)
        telemetry.health.set("reloads", ok=True, detail="0")
        if worker.announces:
            print("listening on {}:{} (tcp)".format(*args.listen), flush=True)
        await telemetry.until_stopped()
        server.close()


if __name__ == "__main__":
    sys.exit(main())
