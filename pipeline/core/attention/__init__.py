"""Attention: queries look at a sequence, each at what it needs of it."""
