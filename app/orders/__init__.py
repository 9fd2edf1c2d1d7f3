"""The orders of jobs: validated forms that are kept as JSON in the queue."""
