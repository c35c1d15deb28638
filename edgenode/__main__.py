"""`python -m edgenode` is `edgenode`."""

from edgenode.cli import main

if __name__ == "__main__":
    main()
