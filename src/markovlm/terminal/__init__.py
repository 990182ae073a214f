"""Output on the terminal; nothing is computed here."""
