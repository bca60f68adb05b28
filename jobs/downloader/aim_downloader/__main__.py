"""`python -m aim_downloader` is the same as the console script."""

from aim_downloader.main import main

if __name__ == "__main__":
    main()
