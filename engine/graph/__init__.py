"""Edits of OpenVINO graphs: sockets, masks, variants."""
