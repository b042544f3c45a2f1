"""`python -m ccs` is the command `ccs`."""

from ccs.cli import main

if __name__ == "__main__":
    main()
