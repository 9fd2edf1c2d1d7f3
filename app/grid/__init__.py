"""Grids: the axes that are swept, the pictures that are planned, and the sheet."""
