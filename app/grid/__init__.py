"""Grids: what is swept, what will be drawn, the sheet."""
