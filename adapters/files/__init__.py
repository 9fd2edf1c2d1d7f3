"""Adapter files and checkpoints as bytes: headers, tensors and metadata."""
