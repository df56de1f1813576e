"""Runs the command line by ``python -m gemini_sync.cli``."""

import sys

from gemini_sync.cli import main

sys.exit(main())
