"""The numerical core: torch and numpy only."""
