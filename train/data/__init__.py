"""Data sets: recognized, measured, and sorted into buckets."""
