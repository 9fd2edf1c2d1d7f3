"""The folder of adapters."""
