"""The names of modules and tensors, in other programs and in diffusers."""
