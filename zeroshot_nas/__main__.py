"""``python -m zeroshot_nas``: the command line."""

from zeroshot_nas.cli import main

if __name__ == "__main__":
    main()
