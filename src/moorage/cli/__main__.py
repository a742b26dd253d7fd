"""`python -m moorage.cli` is `moorage`, for where the script is not on the path."""

from __future__ import annotations

from moorage.cli import main

if __name__ == "__main__":
    main()
