"""`python -m vidseg`."""

from vidseg.cli import main

if __name__ == "__main__":
    main()
