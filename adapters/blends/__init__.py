"""Adapters with their weights: tags, block weights, schedules, masks."""
