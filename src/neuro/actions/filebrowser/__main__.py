"""``python3 -m neuro.actions.filebrowser``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from neuro.actions.filebrowser.server import Server


def main() -> int:
    """Serve until a signal says stop."""
    parser = argparse.ArgumentParser(
        prog="python3 -m neuro.actions.filebrowser",
        description="Show one folder in a browser: list, upload, download, move, delete.",
        epilog="There are no accounts: anybody who reaches the port may do all of that.",
    )
    parser.add_argument("--root", required=True, metavar="DIR", help="the folder to show")
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8085, help="0 is any (default: %(default)s)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a host name under which browsers may ask, beside localhost and addresses;"
        " may be given more than once",
    )
    parser.add_argument("--read-only", action="store_true", help="show and download only")
    options = parser.parse_args()
    if not Path(options.root).is_dir():
        parser.error(f"{options.root} is not a folder. Name one that is there with --root.")

    # Before any thread is there, so that no thread but this one ever gets them.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        server = Server(
            (options.host, options.port),
            options.root,
            read_only=options.read_only,
            names=options.name,
        )
    except (OSError, OverflowError) as error:
        parser.error(f"Cannot listen on {options.host}:{options.port}: {error}.")
    threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
    sys.stdout.write(f"Showing {options.root} on http://{options.host}:{server.server_port}/\n")
    sys.stdout.flush()
    signal.sigwait(signals)
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
