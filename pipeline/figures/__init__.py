"""Figures as declarations over quantities; the frame draws them."""
