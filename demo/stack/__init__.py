"""The stack as plain processes: Triton, Guard, Valkey, Prometheus; and the check of its dashboard and alerts."""
