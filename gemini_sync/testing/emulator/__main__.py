"""The command ``python -m gemini_sync.testing.emulator``, which runs the emulator until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence

from gemini_sync.testing.emulator import Emulator


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {port}")
    return port


def main(argv: Sequence[str] | None = None) -> int:
    """Print what to put into the environment, then serve until Ctrl-C; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="gemini-sync emulator", description="Serve both Gemini endpoints on 127.0.0.1, without Gemini."
    )
    parser.add_argument("--port", type=_port, default=0, help="the port to listen on (default: a free one)")
    parser.add_argument("--credentials", metavar="PATH", help="write a credentials file with good tokens there")
    options = parser.parse_args(argv)
    # Ctrl-C is the usual way to end the command, so it is no error.
    with contextlib.suppress(KeyboardInterrupt), Emulator(port=options.port) as emulator:
        lines = [
            f"# The Gemini emulator serves {emulator.url} until Ctrl-C. For another shell:",
            f"export GEMINI_API_KEY={emulator.key}",
            f"export GOOGLE_GEMINI_BASE_URL={emulator.url}",
            f"export CODE_ASSIST_ENDPOINT={emulator.url}",
            f"export GEMINI_OAUTH_CLIENT_ID={emulator.client_id}",
            f"export GEMINI_OAUTH_CLIENT_SECRET={emulator.client_secret}",
        ]
        if options.credentials:
            path = emulator.write_credentials(options.credentials)
            lines.append(f"export GOOGLE_APPLICATION_CREDENTIALS={path.absolute()}")
        lines.append(f"# The token endpoint is {emulator.urls['token']}")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        while True:
            time.sleep(1)  # not a lock of threading, because Ctrl-C can come while that is half released
    return 0


if __name__ == "__main__":
    sys.exit(main())
