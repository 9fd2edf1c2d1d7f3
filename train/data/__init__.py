"""Data sets: what people bring, understood, measured and put into buckets."""
