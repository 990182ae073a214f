"""What people see in a terminal; nothing is computed here."""
