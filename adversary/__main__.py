"""`python -m adversary`."""

from adversary.cli import main

raise SystemExit(main())
