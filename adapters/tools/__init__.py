"""What makes a new file from adapter files, or compares them."""
