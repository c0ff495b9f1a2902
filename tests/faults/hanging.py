"""`python -m tests.faults.hanging`: `guard`, with the stages that fail; those that hang outlast any test."""

import sys

from guard import cli, registry
from tests.faults import stages

if __name__ == "__main__":
    stages.HANG_S = 3600.0
    for (kind, name), stage in stages.STAGES.items():
        registry.register(kind, name)(stage)
    sys.exit(cli.main())
