"""Adapter files and checkpoints as bytes: headers, tensors, metadata."""
