"""What pictures say about how they were made, whichever program wrote it. `programs` is the way in."""
