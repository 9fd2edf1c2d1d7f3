"""The live runtime: adapters plug into sockets of compiled graphs."""
