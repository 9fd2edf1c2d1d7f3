"""Names of modules and tensors: what other programs call them, and what diffusers calls them."""
