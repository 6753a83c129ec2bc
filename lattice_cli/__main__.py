"""``python -m lattice_cli`` is ``lattice``, also where the script is not on the PATH."""

from lattice_cli.entry import main

if __name__ == "__main__":
    main()
