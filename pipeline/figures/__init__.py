"""Figures: each a pure function of result tables, with the small table that is drawn and a title computed from it."""
