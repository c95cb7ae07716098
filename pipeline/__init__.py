"""Gradient dynamics of recurrent networks: datasets, recurrences, training, sweeps and reports."""
