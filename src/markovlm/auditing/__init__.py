"""Auditing chains of thought that somebody else wrote: sources, readers, numbers, page."""
