"""Claims and the rules by which they are judged."""
