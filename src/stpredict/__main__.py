"""``python -m stpredict`` is the command ``stpredict``."""

from stpredict.cli import main

if __name__ == "__main__":
    main()
