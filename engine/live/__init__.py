"""The live runtime: adapters plug into the sockets of compiled graphs."""
