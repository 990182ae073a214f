"""What a run writes to disk, and how it is opened again."""
