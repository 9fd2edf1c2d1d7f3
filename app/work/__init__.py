"""The runners of jobs."""
