"""Tools that make new files from adapter files, or compare them."""
