"""The language of prompts: weights of words, prompts longer than the text encoders, and where they are cut."""
