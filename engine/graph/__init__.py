"""Edits of OpenVINO graphs: sockets, steering, weights."""
