"""A person at a terminal: the prompt, and what may be shown there."""
