"""The browser demo of a checkout that is not installed: `python app.py` is `asr demo`, with the same options."""

import sys

from asr.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
