"""Networks of stages with rows of concurrent calls in one run, and without: calls a second, and how long each takes."""
