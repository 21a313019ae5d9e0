"""`python -m nash_search` is `nash-search`."""

from nash_search.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
